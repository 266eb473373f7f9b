"""The contract of every KV driver, and of a namespace on it; time is virtual.

Texts of errors are those of workerd and Miniflare, or "edgesim" where they are its own.
"""

import json
from functools import partial

import anyio
import pytest

from edgesim.drivers import known, opener, properties
from edgesim.errors import ConfigError, PlatformError, RunError
from edgesim.kv.driver import KvEntry
from edgesim.kv.namespace import KvNamespace, KvOperations
from edgesim.kv.probe import probe
from edgesim.model import Stream
from edgesim.replay.virtual_loop import VirtualLoop
from tests.kv_world import open_in_virtual_time, url_of
from tests.queues_world import VirtualClock

pytestmark = pytest.mark.anyio

MIB = 1 << 20
LONG = "x" * 513
TOO_LONG = "414 UTF-8 encoded length of 513 exceeds key length limit of 512."
NO_JSON = "400 At least one of the requested keys corresponds to a non-json value"


@pytest.fixture
def anyio_backend():
    """All tests here run in virtual time."""
    return "asyncio", {"loop_factory": partial(VirtualLoop, 0, 0.0)}


@pytest.fixture
def clock():
    """The clock of namespaces and stores."""
    return VirtualClock()


@pytest.fixture(params=known("kv"))
def url(request, tmp_path):
    """The URL of a new store of each driver."""
    return url_of(request, tmp_path)


@pytest.fixture
async def driver(url, clock):
    """The open store."""
    async with open_in_virtual_time(url, clock) as driver:
        yield driver


@pytest.fixture
def kv(driver, clock):
    """A namespace of the store."""
    return KvNamespace("ns", driver, clock)


async def names(kv, **options):
    return [key.name for key in (await kv.list(**options)).keys]


async def refusal(call):
    with pytest.raises(PlatformError) as caught:
        await call
    return caught.value.name, caught.value.message


async def chunks(*parts):
    for part in parts:
        yield part


async def test_operations_are_counted(kv):
    """Each key of a bulk read is one; a call that is refused is none."""
    for key in ("a", "b"):
        await kv.put(key, b"1")
    await kv.get("a")
    await kv.get_many(["a", "b", "c", "a"])
    await kv.delete("a")
    await kv.list()
    for refused in (kv.get(""), kv.put("x" * 513, b""), kv.list(limit=1001)):
        await refusal(refused)
    assert kv.operations == KvOperations(reads=4, writes=2, deletes=1, lists=1)


# --- drivers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["memory:name", "sqlite:"])
async def test_url_with_a_wrong_path_is_refused(bad, clock):
    """A URL with a path that the driver cannot use, or without one it needs, is a ConfigError."""
    with pytest.raises(ConfigError, match="path"):
        async with opener("kv", bad)(bad, clock):
            pass


async def test_an_entry_is_stored_and_replaced(driver, clock):
    """An entry is returned as it was stored; the last put counts, with its metadata."""
    first = KvEntry(b"\x00\xff", 1_900_000_000, '{"a":[1]}')
    assert await driver.get("ns", "k", clock.now()) is None
    await driver.put("ns", "k", first, clock.now())
    assert await driver.get("ns", "k", clock.now()) == first
    await driver.put("ns", "k", KvEntry(b""), clock.now())
    assert await driver.get("ns", "k", clock.now()) == KvEntry(b"")
    await driver.delete("ns", "k")
    await driver.delete("ns", "k")
    assert await driver.get("ns", "k", clock.now()) is None


async def test_namespaces_are_apart(driver, clock):
    """Keys of one namespace are not in another, whatever characters their ids have."""
    ids = ["a", "A", "a.b", "<YOUR_KV_NAMESPACE_ID>", "ä *>"]
    for each in ids:
        await driver.put(each, "k", KvEntry(each.encode()), clock.now())
    for each in ids:
        found = await driver.get(each, "k", clock.now())
        assert found == KvEntry(each.encode())
        assert [key.name for key in await driver.list(each, "", "", 10, clock.now())] == ["k"]
    await driver.delete("a", "k")
    assert await driver.get("A", "k", clock.now()) is not None


ODD = [
    "a b",
    "a/b?c#d",
    "a.b",
    "a..b.",
    "*",
    ">",
    "%",
    "_",
    "ä",
    "\ufffd",
    "\U0001f600",
    "\x00",
    "\n",
]


async def test_keys_may_have_any_characters(driver, clock):
    """Every key is found under its own name, and listed in the order of its bytes."""
    for key in [*ODD, "x" * 512]:
        await driver.put("ns", key, KvEntry(key.encode()), clock.now())
    for key in [*ODD, "x" * 512]:
        assert await driver.get("ns", key, clock.now()) == KvEntry(key.encode())
    listed = await driver.list("ns", "", "", 100, clock.now())
    assert [key.name for key in listed] == sorted([*ODD, "x" * 512], key=str.encode)


async def test_a_prefix_is_literal(driver, clock):
    """A prefix selects by its characters; those that SQL or NATS give a meaning have none."""
    for key in ["a%b", "a%", "aXb", "a_", "a", "b", "a\U0010ffff", "\U0010ffffz"]:
        await driver.put("ns", key, KvEntry(b""), clock.now())

    async def begin_with(prefix, after=""):
        return [key.name for key in await driver.list("ns", prefix, after, 100, clock.now())]

    assert await begin_with("a%") == ["a%", "a%b"]
    assert await begin_with("a\U0010ffff") == ["a\U0010ffff"]
    assert await begin_with("\U0010ffff") == ["\U0010ffffz"]
    assert await begin_with("a", "a%b") == ["aXb", "a_", "a\U0010ffff"]
    assert await begin_with("a", "0") == ["a", "a%", "a%b", "aXb", "a_", "a\U0010ffff"]
    assert await begin_with("c") == []


async def test_the_largest_value_with_the_largest_key(kv):
    """25 MiB are stored under a key of 512 bytes, replaced by fewer, and leave nothing behind."""
    value = bytes(range(256)) * (25 * MIB // 256)
    await kv.put("k" * 512, value)
    assert (await kv.get("k" * 512)).value == value
    await kv.put("k" * 512, b"small")
    assert (await kv.get("k" * 512)).value == b"small"
    assert await names(kv) == ["k" * 512]


async def test_many_writers_of_one_key(kv):
    """Concurrent puts of one key leave one of their values, whole."""
    values = [bytes([65 + n]) * (n * 100_000 + 1) for n in range(8)]
    async with anyio.create_task_group() as tasks:
        for value in values:
            tasks.start_soon(kv.put, "k", value)
    assert (await kv.get("k")).value in values
    assert await names(kv) == ["k"]


async def test_entries_outlive_the_store(url, clock):
    """A durable store has its entries when it is opened again, with expiration and metadata."""
    if not properties("kv", url).durable:
        pytest.skip("in memory")
    entry = KvEntry(b"v" * MIB, 1_900_000_000, '"m"')
    async with open_in_virtual_time(url, clock) as driver:
        await driver.put("ns", "k", entry, clock.now())
        await driver.put("ns", "gone", entry, clock.now())
        await driver.delete("ns", "gone")
    async with open_in_virtual_time(url, clock) as driver:
        assert await driver.get("ns", "k", clock.now()) == entry
        assert [key.name for key in await driver.list("ns", "", "", 9, clock.now())] == ["k"]


async def test_a_damaged_file_is_named(tmp_path, clock):
    """A file that is no database is a RunError with its name and the fix."""
    (tmp_path / "kv.db").write_bytes(b"no database" * 1000)
    url = f"sqlite:{tmp_path}/kv.db"
    with pytest.raises(RunError, match=r"kv\.db.*move the file away"):
        async with opener("kv", url)(url, clock):
            pass


async def test_a_deleted_file_stores_nothing(tmp_path, clock):
    """A put into a file that was deleted is an error: the value would be lost."""
    url = f"sqlite:{tmp_path}/kv.db"
    async with opener("kv", url)(url, clock) as driver:
        await driver.put("ns", "k", KvEntry(b""), clock.now())
        (tmp_path / "kv.db").unlink()
        with pytest.raises(RunError, match="was deleted or replaced"):
            await driver.put("ns", "k", KvEntry(b""), clock.now())


async def test_expired_entries_are_removed_from_the_file(tmp_path, clock):
    """Expired entries leave the file as others are written, a bounded number at a time."""
    url = f"sqlite:{tmp_path}/kv.db"
    async with opener("kv", url)(url, clock) as driver:
        for number in range(250):
            entry = KvEntry(b"", int(clock.now()) + 60)
            await driver.put("ns", str(number), entry, clock.now())
        await clock.advance(60)
        counts = []
        for _ in range(4):
            await driver.put("ns", "k", KvEntry(b""), clock.now())
            counts += driver._database.run("SELECT count(*) FROM kv_entry")[0]
    assert counts == [151, 51, 1, 1]


async def test_the_doctor_leaves_nothing_behind(driver, clock):
    """The check of a store reports one line, and removes what it has written."""
    found = [each async for each in probe(driver, clock, "here")]
    assert [(each.status, each.said) for each in found] == [
        ("ok", "here: a value was stored and read")
    ]
    assert await driver.list("edgesim-doctor", "", "", 9, clock.now()) == []


# --- expiration ---------------------------------------------------------------------------------


async def test_an_entry_expires(kv, clock):
    """An entry is there until its time has come, and then neither read nor listed."""
    await kv.put("ttl", b"1", expiration_ttl=60)
    await kv.put("at", b"2", expiration=int(clock.now()) + 90)
    await kv.put("ever", b"3")
    shown = {key.name: key.expiration for key in (await kv.list()).keys}
    assert shown == {"at": int(clock.start) + 90, "ever": None, "ttl": int(clock.start) + 60}
    await clock.advance(59)
    assert (await kv.get("ttl")).value == b"1"
    await clock.advance(1)
    assert await kv.get("ttl") is None
    assert await names(kv) == ["at", "ever"]
    await clock.advance(30)
    found = await kv.get_many(["ttl", "at", "ever"])
    assert [entry and entry.value for entry in found.values()] == [None, None, b"3"]


async def test_a_later_put_ends_an_expiration(kv, clock):
    """A put without an expiration makes the entry permanent; a TTL overrides an expiration."""
    await kv.put("k", b"1", expiration_ttl=60)
    await kv.put("k", b"2")
    await kv.put("both", b"", expiration=1_900_000_000, expiration_ttl=100)
    await clock.advance(101)
    assert (await kv.get("k")).value == b"2"
    assert await kv.get("both") is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"expiration_ttl": 59}, "expiration_ttl of 59. Expiration TTL must be at least 60."),
        ({"expiration_ttl": 0}, "expiration_ttl of 0. Please specify integer greater than 0."),
        ({"expiration_ttl": -1}, "expiration_ttl of -1. Please specify integer greater than 0."),
        (
            {"expiration": 1000},
            (
                "expiration of 1000. Please specify integer greater than the current number of "
                "seconds since the UNIX epoch."
            ),
        ),
        (
            {"expiration": 1_800_000_059},
            "expiration of 1800000059. Expiration times must be at least 60 seconds in the future.",
        ),
    ],
)
async def test_refused_expirations(kv, options, expected):
    """Times in the past and less than a minute away are refused; nothing is stored."""
    said = await refusal(kv.put("k", b"", **options))
    assert said == ("Error", f"KV PUT failed: 400 Invalid {expected}")
    assert await kv.get("k") is None


# --- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("", ("TypeError", "Key name cannot be empty.")),
        (".", ("TypeError", '"." is not allowed as a key name.')),
        ("..", ("TypeError", '".." is not allowed as a key name.')),
    ],
)
async def test_names_that_no_key_may_have(kv, key, expected):
    """An empty key and the names of folders are refused by every method."""
    assert await refusal(kv.get(key)) == expected
    assert await refusal(kv.put(key, b"")) == expected
    assert await refusal(kv.delete(key)) == expected


async def test_a_key_of_513_bytes(kv):
    """Keys are limited in bytes of UTF-8, prefixes too."""
    assert await refusal(kv.get(LONG)) == ("Error", f"KV GET failed: {TOO_LONG}")
    assert await refusal(kv.put(LONG, b"")) == ("Error", f"KV PUT failed: {TOO_LONG}")
    assert await refusal(kv.delete(LONG)) == ("Error", f"KV DELETE failed: {TOO_LONG}")
    assert await refusal(kv.list(LONG)) == ("Error", f"KV GET failed: {TOO_LONG}")
    assert "of 514 exceeds" in (await refusal(kv.get("é" * 257)))[1]
    await kv.put("é" * 256, b"")
    assert await names(kv, prefix="é" * 256) == ["é" * 256]


async def test_a_value_over_25_mib(kv):
    """A larger value is refused whole, as bytes and as a stream of either kind."""
    size = 25 * MIB + 1
    expected = f"KV PUT failed: 413 Value length of {size} exceeds limit of {25 * MIB}."
    await kv.put("k", b"before")
    assert (await refusal(kv.put("k", bytes(size))))[1] == expected
    assert (await refusal(kv.put("k", Stream(chunks(b""), size))))[1] == expected
    assert (await refusal(kv.put("k", Stream(chunks(bytes(size - 1), b"x")))))[1] == expected
    assert (await kv.get("k")).value == b"before"
    await kv.put("k", Stream(chunks(b"af", b"", b"ter")))
    assert (await kv.get("k")).value == b"after"


async def test_metadata_over_1024_bytes(kv):
    """Metadata is limited in bytes of its JSON."""
    largest = json.dumps("m" * 1022)
    await kv.put("k", b"", metadata=largest)
    assert (await kv.get("k")).metadata == largest
    assert [key.metadata for key in (await kv.list()).keys] == [largest]
    said = await refusal(kv.put("k", b"", metadata=json.dumps("m" * 1023)))
    assert said[1] == "KV PUT failed: 413 Metadata length of 1025 exceeds limit of 1024."
    assert (await kv.get("k")).metadata == largest


async def test_a_cache_ttl_under_30_s(kv):
    """A cacheTtl has no effect but its limit."""
    await kv.put("k", b"v")
    assert (await kv.get("k", 30)).value == b"v"
    said = "400 Invalid cache_ttl of 29. Cache TTL must be at least 30."
    assert (await refusal(kv.get("k", 29)))[1] == f"KV GET failed: {said}"
    assert (await refusal(kv.get_many(["k"], cache_ttl=29)))[1] == f"KV GET_BULK failed: {said}"


# --- several keys -------------------------------------------------------------------------------


async def test_several_keys(kv):
    """Up to 100 keys are read at once, in their order; missing ones are None."""
    await kv.put("b", b"1", metadata="5")
    await kv.put("a", b"2")
    found = await kv.get_many(["b", "none", "a", "b"])
    assert found == {"b": KvEntry(b"1", None, "5"), "none": None, "a": KvEntry(b"2")}
    assert len(await kv.get_many([f"k{n}" for n in range(100)])) == 100


@pytest.mark.parametrize(
    ("keys", "kind", "expected"),
    [
        ([], "text", "400 You must request a minimum of 1 key"),
        (["k"] * 101, "text", "400 You can request a maximum of 100 keys"),
        (["k"], "stream", '400 "stream" is not a valid type. Use "json" or "text"'),
        (["k", ""], "text", "400 Key names must not be empty"),
        (["."], "text", '400 Illegal key name ".". Please use a different name.'),
        (["k", LONG], "text", TOO_LONG),
        (["json", "k"], "json", NO_JSON),
    ],
)
async def test_refused_reads_of_several_keys(kv, keys, kind, expected):
    """Numbers, types and names that a read of several keys may not have."""
    await kv.put("k", b"no JSON")
    await kv.put("json", b"[1]")
    assert await refusal(kv.get_many(keys, kind)) == ("Error", f"KV GET_BULK failed: {expected}")


async def test_several_values_over_25_mib(kv):
    """The values of one read have 25 MiB together."""
    await kv.put("a", bytes(13 * MIB))
    await kv.put("b", bytes(12 * MIB))
    assert len(await kv.get_many(["a", "b"])) == 2
    await kv.put("c", b"x")
    said = (await refusal(kv.get_many(["a", "b", "c"])))[1]
    assert said == "KV GET_BULK failed: 413 Total size of request exceeds the limit of 25MB"


# --- list ---------------------------------------------------------------------------------------


async def test_pages(kv):
    """A cursor continues after the last key of its page; the last page has none."""
    for number in range(7):
        await kv.put(f"p/{number}", b"")
    await kv.put("q", b"")
    first = await kv.list("p/", 3)
    await kv.delete("p/2")
    await kv.put("p/25", b"")
    second = await kv.list("p/", 3, first.cursor)
    third = await kv.list("p/", 3, second.cursor)
    pages = [[key.name for key in page.keys] for page in (first, second, third)]
    assert pages == [["p/0", "p/1", "p/2"], ["p/25", "p/3", "p/4"], ["p/5", "p/6"]]
    assert (second.cursor is None, third.cursor) == (False, None)
    assert (await kv.list("p/", 7)).cursor is None


async def test_a_page_has_1000_keys(kv):
    """1,000 keys are a page, and its limit; smaller numbers than 1 mean the limit."""
    for number in range(1001):
        await kv.put(f"{number:04}", b"")
    page = await kv.list()
    assert (len(page.keys), page.keys[-1].name) == (1000, "0999")
    assert await names(kv, cursor=page.cursor) == ["1000"]
    assert len((await kv.list(limit=0)).keys) == len((await kv.list(limit=-5)).keys) == 1000
    said = "400 Invalid key_count_limit of 1001. Please specify an integer less than 1000."
    assert (await refusal(kv.list(limit=1001)))[1] == f"KV GET failed: {said}"


@pytest.mark.parametrize("cursor", ["bad!!", "a", "/w=="])
async def test_a_cursor_that_is_none(kv, cursor):
    """A cursor that no page gave is refused (edgesim: Miniflare begins somewhere)."""
    assert await refusal(kv.list(cursor=cursor)) == ("Error", "KV GET failed: 400 Invalid cursor.")

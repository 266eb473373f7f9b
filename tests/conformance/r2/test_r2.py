"""The contract of a Bucket over every R2 driver; S3 runs on a real server.

In brackets: the source of the behaviour.  API, LIMITS, CONSISTENCY and EVENTS are pages of
developers.cloudflare.com/r2 (Workers API reference, limits, consistency model, event
notifications), WORKERD is its source in src/workerd/api/r2-*, MINIFLARE the error table of
Cloudflare's local R2, EDGESIM edgesim's own contract.
"""

import hashlib
import json
from datetime import UTC, datetime

import anyio
import anyio.lowlevel
import msgspec
import pytest

from edgesim.errors import PlatformError, RunError
from edgesim.model import HttpMetadata, Stream
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.r2.driver import Finished, OutboxEntry
from edgesim.r2.options import Conditional, Range
from tests.r2_world import NOW_MS, chunks, stream, text

pytestmark = pytest.mark.anyio

# Each is a different object, and none is a path.
HOSTILE_KEYS = [
    "../../x",
    "..",
    ".",
    "/etc/passwd",
    "/",
    "//",
    "a",
    "a/",
    "a/b",
    "a//b",
    "a/./b",
    "a/../b",
    "a-b",
    "a\\b",
    "nul\0nul",
    "line\nline",
    "tab\tspace end ",
    "CON",
    "per%2Fcent",
    "plus+question?hash#amp&",
    "quote'\"<xml>",
    "é",
    "e\u0301",
    "😀",
    "\uffff",
    "~",
    "\x7f",
    "k" * 1024,
    "k" * 1023 + "l",
    "d/" * 500 + "file",
    "n" * 300 + "/" + "m" * 300,
]


async def keys(bucket: Bucket, **options) -> list[str]:
    """Return the keys of a page."""
    return [found.key for found in (await bucket.list(**options)).objects]


# --- put, get, head -------------------------------------------------------------------------------


async def test_an_object_comes_back_as_it_was_put(bucket):
    """get returns the bytes and the metadata of put [API]."""
    put = await bucket.put("in/a.json", b"hello")
    found = await bucket.get("in/a.json")
    assert isinstance(found, R2ObjectBody)
    assert found.object == put
    assert found.range == Range(0, 5)
    assert await text(found) == b"hello"


async def test_head_gives_the_metadata_alone(bucket):
    """head returns the same as put [API]."""
    put = await bucket.put("a", b"hello")
    assert await bucket.head("a") == put


async def test_an_object_that_is_not_there_is_none(bucket):
    """get and head return None for a missing key and in a bucket never used [API]."""
    assert await bucket.get("missing") is None
    assert await bucket.head("missing") is None
    assert await bucket.get("missing", range=Range(0, 1)) is None


async def test_an_empty_object_has_an_empty_body(bucket):
    """An object may have zero bytes [API]."""
    put = await bucket.put("empty", b"")
    assert put.size == 0
    assert await text(await bucket.get("empty")) == b""
    assert await text(await bucket.get("empty", only_if=Conditional(etag_matches=("*",)))) == b""


@pytest.mark.parametrize("size", [256 * 1024, 600_001, 8 * 1024**2, 9 * 1024**2 + 1])
async def test_a_large_object_comes_back_whole(bucket, size):
    """Objects larger than any chunk or part keep all bytes in order [API]."""
    data = hashlib.shake_128(b"seed").digest(size)
    put = await bucket.put("large", stream(data[:1000], data[1000:]))
    assert put.size == size
    assert put.etag == hashlib.md5(data).hexdigest()
    assert await text(await bucket.get("large")) == data


async def test_the_body_says_how_long_it_is(bucket):
    """An object's stream knows its length before it is read [API]."""
    await bucket.put("a", b"0123456789")
    whole, part = await bucket.get("a"), await bucket.get("a", range=Range(suffix=3))
    assert (whole.body.length, part.body.length) == (10, 3)
    await whole.body.aclose()
    await part.body.aclose()


async def test_an_object_says_when_it_was_uploaded_and_has_a_version_of_its_own(bucket, world):
    """`uploaded` is the clock's time in ms, `version` is new for each put [API]."""
    first = await bucket.put("a", b"x")
    world.clock.time_ms += 1
    second = await bucket.put("a", b"x")
    assert (first.uploaded, second.uploaded) == (NOW_MS, NOW_MS + 1)
    assert first.version != second.version
    assert len(second.version) == 32


async def test_a_put_replaces_what_was_there(bucket):
    """The last write is read, including its metadata [CONSISTENCY]."""
    await bucket.put("a", b"old and longer", custom_metadata={"old": "1"})
    await bucket.put("a", b"new")
    found = await bucket.get("a")
    assert await text(found) == b"new"
    assert found.object.custom_metadata == {}


async def test_buckets_do_not_share_keys(world):
    """The same key in two buckets is two objects [API]."""
    other = world.other("other-bucket")
    await world.bucket.put("a", b"events")
    await other.put("a", b"other")
    assert await text(await world.bucket.get("a")) == b"events"
    await world.bucket.delete("a")
    assert await text(await other.get("a")) == b"other"


async def test_an_empty_bucket_can_be_dropped_and_comes_back_with_a_put(world):
    """Its first put creates a bucket; dropping an unknown bucket has no effect."""
    other = world.other("dropped")
    await other.put("k", b"1")
    assert await world.driver.has("dropped")
    await other.delete("k")
    await world.driver.drop("dropped")
    await world.driver.drop("dropped")
    await other.put("k", b"2")
    assert await world.driver.has("dropped")
    assert (await world.driver.head("dropped", "k")).size == 1


async def test_a_body_that_fails_changes_nothing(bucket):
    """If the stream raises half way, the previous object stays [CONSISTENCY]."""

    async def broken():
        yield b"new"
        raise ConnectionResetError("the client went away")

    await bucket.put("a", b"old")
    with pytest.raises(ConnectionResetError):
        await bucket.put("a", Stream(broken(), 10))
    assert await text(await bucket.get("a")) == b"old"


async def test_a_cancelled_put_changes_nothing(bucket):
    """A cancelled put leaves the previous object, and no lock [CONSISTENCY]."""

    async def endless():
        while True:
            yield b"new" * 10_000
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()

    await bucket.put("in/a.gz", b"old")
    async with anyio.create_task_group() as group:
        group.start_soon(bucket.put, "in/a.gz", Stream(endless(), 10**9))
    assert await text(await bucket.get("in/a.gz")) == b"old"
    with anyio.fail_after(60):
        assert await bucket.put("in/a.gz", b"newer")


@pytest.mark.parametrize(
    ("length", "message"), [(4, "did not see all expected bytes"), (2, "too many bytes")]
)
async def test_a_stream_must_keep_its_announced_length(bucket, length, message):
    """More or fewer bytes than announced are refused, and nothing is stored [WORKERD]."""
    with pytest.raises(PlatformError, match=message) as refused:
        await bucket.put("a", stream(b"abc", length=length))
    assert refused.value.name == "TypeError"
    assert await bucket.head("a") is None


async def test_an_object_over_the_limit_of_one_put_is_refused(bucket):
    """EntityTooLarge comes before the first byte is read [LIMITS]."""
    with pytest.raises(PlatformError) as refused:
        await bucket.put("a", stream(b"", length=5 * 1024**3))
    assert refused.value.message == (
        "put: Your proposed upload exceeds the maximum allowed object size. (100100)"
    )


async def test_a_refused_put_closes_its_stream(bucket):
    """The body's source is closed after any refusal [EDGESIM]."""
    closed = []

    async def source():
        try:
            yield b"x"
        finally:
            closed.append(True)

    for key, checksums in (("", {}), ("a", {"md5": "not hex"})):
        body = source()
        await anext(body)
        with pytest.raises(PlatformError):
            await bucket.put(key, Stream(body, 1), checksums=checksums)
    assert closed == [True, True]


async def test_a_reader_is_not_disturbed_by_an_overwrite_or_a_delete(bucket):
    """An open body keeps reading its version of the object [CONSISTENCY]."""
    await bucket.put("a", b"1" * 100_000)
    before_overwrite = await bucket.get("a")
    await bucket.put("a", b"2" * 100_000)
    before_delete = await bucket.get("a")
    await bucket.delete("a")
    assert await text(before_overwrite) == b"1" * 100_000
    assert await text(before_delete) == b"2" * 100_000


async def test_a_body_may_be_closed_unread(bucket):
    """Closing early leaves the store usable, and the stream empty [EDGESIM]."""
    await bucket.put("a", b"x" * 1_000_000)
    found = await bucket.get("a")
    assert await found.body.read()
    await found.body.aclose()
    assert await text(await bucket.get("a")) == b"x" * 1_000_000


async def test_many_open_bodies_do_not_stop_other_calls(bucket):
    """Open bodies that are not read do not block other calls [EDGESIM]."""
    await bucket.put("a", b"x" * 2_000_000)
    bodies = [await bucket.get("a") for _ in range(12)]
    with anyio.fail_after(60):
        assert await bucket.head("a")
    for found in bodies:
        await found.body.aclose()


# --- keys -----------------------------------------------------------------------------------------


async def test_any_key_is_just_a_name(bucket):
    """Paths, control characters and any script are separate objects in UTF-8 order [LIMITS]."""
    for key in HOSTILE_KEYS:
        await bucket.put(key, key.encode())
    for key in HOSTILE_KEYS:
        found = await bucket.get(key)
        assert found.object.key == key
        assert await text(found) == key.encode()
    assert await keys(bucket) == sorted(HOSTILE_KEYS, key=str.encode)
    await bucket.delete(HOSTILE_KEYS)
    assert await keys(bucket) == []


@pytest.mark.parametrize("key", ["", "k" * 1025, "é" * 513, "\ud800"])
async def test_an_impossible_key_is_refused_by_every_call(bucket, key):
    """Empty, over 1,024 bytes of UTF-8, or invalid UTF-8: error 10020 [LIMITS]."""
    calls = {
        "head": bucket.head(key),
        "get": bucket.get(key),
        "put": bucket.put(key, b""),
        "delete": bucket.delete(["fine", key]),
    }
    for action, call in calls.items():
        with pytest.raises(PlatformError) as refused:
            await call
        assert refused.value.message == f"{action}: The specified object name is not valid. (10020)"
        assert refused.value.name == "Error"


# --- metadata and checksums -----------------------------------------------------------------------


async def test_metadata_survives_in_any_script(bucket):
    """HTTP and custom metadata are returned unchanged, with any characters [API]."""
    http = HttpMetadata(
        content_type="text/plain; charset=utf-8",
        content_language="de",
        content_disposition='attachment; filename="Grüße.txt"',
        content_encoding="gzip",
        cache_control="no-store",
        cache_expiry=1_800_000_000_000.0,
    )
    custom = {"plain": "x", "Größe": "☃ 😀", "lines": "a\r\nb\0", "": "empty name"}
    put = await bucket.put("a", b"\x1f\x8b", http_metadata=http, custom_metadata=custom)
    found = await bucket.head("a")
    assert found == put
    assert (found.http_metadata, found.custom_metadata) == (http, custom)
    assert await text(await bucket.get("a")) == b"\x1f\x8b"


async def test_metadata_is_the_store_s_own_copy(bucket):
    """Changing a dict that was passed or returned changes no object [EDGESIM]."""
    given = {"a": "1"}
    (await bucket.put("a", b"", custom_metadata=given)).custom_metadata["b"] = "2"
    given["c"] = "3"
    assert (await bucket.head("a")).custom_metadata == {"a": "1"}


async def test_metadata_has_8192_bytes(bucket):
    """The limit counts UTF-8 bytes of names and values, also of HTTP metadata [LIMITS]."""
    http = HttpMetadata(content_type="t" * 92)
    fits = {"k" * 50: "é" * 4025}
    await bucket.put("a", b"", http_metadata=http, custom_metadata=fits)
    assert (await bucket.head("a")).custom_metadata == fits
    with pytest.raises(PlatformError) as refused:
        await bucket.put("b", b"", http_metadata=http, custom_metadata={**fits, "x": ""})
    assert refused.value.message == (
        "put: Your metadata headers exceed the maximum allowed metadata size. (10012)"
    )
    assert await bucket.head("b") is None


async def test_metadata_that_is_no_utf8_is_refused(bucket):
    """An unpaired surrogate cannot be stored [MINIFLARE]."""
    with pytest.raises(PlatformError, match=r"put: Metadata missing or invalid \(10029\)"):
        await bucket.put("a", b"", custom_metadata={"x": "\ud800"})


async def test_the_etag_is_the_md5_and_checksums_have_it(bucket):
    """A plain put computes its MD5 [API]."""
    put = await bucket.put("a", b"hello")
    assert put.etag == "5d41402abc4b2a76b9719d911017c592"
    assert put.checksums == {"md5": put.etag}


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha384", "sha512"])
async def test_a_right_checksum_is_kept(bucket, algorithm):
    """In hex of either case, or as bytes, it is compared and returned in lower-case hex [API]."""
    digest = hashlib.new(algorithm, b"hello")
    for value in (digest.hexdigest(), digest.hexdigest().upper(), digest.digest()):
        put = await bucket.put("a", stream(b"hel", b"lo"), checksums={algorithm: value})
        assert put.checksums[algorithm] == digest.hexdigest()
    assert (await bucket.head("a")).checksums == put.checksums


async def test_a_wrong_checksum_is_refused(bucket):
    """BadDigest names both values, and the previous object stays [MINIFLARE]."""
    await bucket.put("a", b"old")
    with pytest.raises(PlatformError) as refused:
        await bucket.put("a", b"new", checksums={"sha1": "00" * 20})
    actual = hashlib.sha1(b"new").hexdigest()
    assert refused.value.message == (
        "put: The SHA-1 checksum you specified did not match what we received.\n"
        f"You provided a SHA-1 checksum with value: {'00' * 20}\n"
        f"Actual SHA-1 was: {actual} (10037)"
    )
    assert await text(await bucket.get("a")) == b"old"


async def test_the_storage_class_is_kept(bucket):
    """The default is Standard; classes other than R2's two are refused [API]."""
    assert (await bucket.put("a", b"")).storage_class == "Standard"
    await bucket.put("a", b"", storage_class="InfrequentAccess")
    assert (await bucket.head("a")).storage_class == "InfrequentAccess"
    with pytest.raises(PlatformError, match="Glacier"):
        await bucket.put("a", b"", storage_class="Glacier")


# --- ranges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "expected", "served"),
    [
        (Range(), b"0123456789", Range(0, 10)),
        (Range(offset=3), b"3456789", Range(3, 7)),
        (Range(length=4), b"0123", Range(0, 4)),
        (Range(offset=3, length=4), b"3456", Range(3, 4)),
        (Range(offset=9, length=1), b"9", Range(9, 1)),
        (Range(offset=8, length=100), b"89", Range(8, 2)),
        (Range(suffix=3), b"789", Range(7, 3)),
        (Range(suffix=100), b"0123456789", Range(0, 10)),
    ],
)
async def test_a_range_is_served(bucket, asked, expected, served):
    """Offsets, lengths and suffixes are clipped to the object; the result has the range [API]."""
    await bucket.put("a", b"0123456789")
    found = await bucket.get("a", range=asked)
    assert found.range == served
    assert found.object.size == 10
    assert await text(found) == expected


@pytest.mark.parametrize(
    "asked",
    [Range(offset=10), Range(offset=11, length=1), Range(length=0), Range(suffix=0), Range(3, 0)],
)
async def test_a_range_without_bytes_is_refused(bucket, asked):
    """A range that would be empty is InvalidRange [MINIFLARE]."""
    await bucket.put("a", b"0123456789")
    with pytest.raises(PlatformError) as refused:
        await bucket.get("a", range=asked)
    assert refused.value.message == "get: The requested range is not satisfiable (10039)"


# --- preconditions --------------------------------------------------------------------------------

ETAG = hashlib.md5(b"old").hexdigest()
MET = [
    Conditional(etag_matches=(ETAG,)),
    Conditional(etag_matches=("other", ETAG)),
    Conditional(etag_matches=("*",)),
    Conditional(etag_does_not_match=("other",)),
    Conditional(uploaded_before=NOW_MS + 1),
    Conditional(uploaded_after=NOW_MS - 1),
    Conditional(uploaded_before=NOW_MS + 1000, seconds_granularity=True),
    Conditional(etag_matches=(ETAG,), uploaded_before=NOW_MS - 1),
    Conditional(etag_does_not_match=("other",), uploaded_after=NOW_MS + 1),
]
FAILED = [
    Conditional(etag_matches=("other",)),
    Conditional(etag_matches=()),
    Conditional(etag_does_not_match=(ETAG,)),
    Conditional(etag_does_not_match=("*",)),
    Conditional(uploaded_before=NOW_MS),
    Conditional(uploaded_after=NOW_MS),
    Conditional(uploaded_before=NOW_MS + 1, seconds_granularity=True),
    Conditional(uploaded_after=NOW_MS - 1, seconds_granularity=True),
    Conditional(etag_matches=(ETAG,), uploaded_after=NOW_MS),
    Conditional(etag_does_not_match=(ETAG,), uploaded_after=NOW_MS - 1),
]


@pytest.mark.parametrize("condition", MET)
async def test_a_met_condition_lets_the_call_go_ahead(bucket, condition):
    """get returns the body, put stores [API]."""
    await bucket.put("a", b"old")
    assert await text(await bucket.get("a", only_if=condition)) == b"old"
    assert await bucket.put("a", b"new", only_if=condition)
    assert await text(await bucket.get("a")) == b"new"


@pytest.mark.parametrize("condition", FAILED)
async def test_a_failed_condition_stops_the_call(bucket, condition):
    """get returns the object without its body, put returns None and stores nothing [API]."""
    put = await bucket.put("a", b"old")
    assert await bucket.get("a", only_if=condition, range=Range(offset=100)) == put
    assert await bucket.put("a", stream(b"new"), only_if=condition) is None
    assert await bucket.head("a") == put


async def test_conditions_on_nothing(bucket):
    """Without an object, only preconditions that require one fail [MINIFLARE]."""
    for condition in (Conditional(etag_matches=("*",)), Conditional(uploaded_after=0)):
        assert await bucket.put("a", b"", only_if=condition) is None
    for condition in (Conditional(etag_does_not_match=("*",)), Conditional(uploaded_before=0)):
        assert await bucket.put("a", b"", only_if=condition)
        await bucket.delete("a")
    assert await bucket.get("a", only_if=Conditional(etag_does_not_match=("*",))) is None


async def test_of_many_who_create_one_wins(bucket):
    """A precondition and its write are atomic, also with slow bodies [CONSISTENCY]."""
    results = []

    async def slow(name):
        for part in (name, b"-", name):
            await anyio.lowlevel.checkpoint()
            yield part

    async def create(name):
        absent = Conditional(etag_does_not_match=("*",))
        results.append(await bucket.put("a", Stream(slow(name), 3), only_if=absent))

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(create, b"%d" % number)
    (winner,) = [result for result in results if result is not None]
    assert await bucket.head("a") == winner


async def test_a_condition_holds_against_other_writers_of_the_store(world):
    """A write between the check and the write makes the precondition fail [CONSISTENCY]."""
    seen = await world.bucket.put("a", b"seen")
    elsewhere = Bucket("events", world.driver, world.clock, world.notifications)

    async def slow():
        yield b"mi"
        await elsewhere.put("a", b"theirs")
        yield b"ne"

    unchanged = Conditional(etag_matches=(seen.etag,))
    assert await world.bucket.put("a", Stream(slow(), 4), only_if=unchanged) is None
    assert await text(await world.bucket.get("a")) == b"theirs"
    absent = Conditional(etag_does_not_match=("*",))
    await elsewhere.delete("a")
    assert await world.bucket.put("a", Stream(slow(), 4), only_if=absent) is None
    assert await text(await world.bucket.get("a")) == b"theirs"


# --- consistency ----------------------------------------------------------------------------------


async def test_no_reader_sees_half_an_object(bucket):
    """During a put, get, head and list return the previous object [CONSISTENCY]."""
    before = await bucket.put("a", b"before" * 1000)
    go_on = anyio.Event()

    async def slow():
        yield b"after" * 1000
        await go_on.wait()
        yield b"after" * 1000

    async with anyio.create_task_group() as group:
        group.start_soon(bucket.put, "a", Stream(slow(), 10_000))
        group.start_soon(bucket.put, "new", Stream(slow(), 10_000))
        await anyio.wait_all_tasks_blocked()
        assert await bucket.head("a") == before
        assert await text(await bucket.get("a")) == b"before" * 1000
        assert await keys(bucket) == ["a"]
        assert await bucket.head("new") is None
        go_on.set()
    assert await text(await bucket.get("a")) == b"after" * 2000
    assert await keys(bucket) == ["a", "new"]


async def test_what_was_written_is_read_by_everybody_at_once(world):
    """After a put or a delete, every read returns it, from any Bucket [CONSISTENCY]."""
    other = Bucket("events", world.driver, world.clock, world.notifications)
    for round_ in range(3):
        await world.bucket.put("a", b"%d" % round_)
        assert await text(await other.get("a")) == b"%d" % round_
        assert await keys(other) == ["a"]
        await other.delete("a")
        assert await world.bucket.get("a") is None
        assert await keys(world.bucket) == []


async def test_of_many_writers_one_whole_object_stays(bucket):
    """Parallel puts of one key never mix: bytes, etag and metadata are of one put [CONSISTENCY]."""

    async def write(number: int) -> None:
        body = b"%d" % number * 50_000
        await bucket.put("a", stream(body), custom_metadata={"writer": str(number)})

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(write, number)
    found = await bucket.get("a")
    body = await text(found)
    assert body == found.object.custom_metadata["writer"].encode() * 50_000
    assert found.object.etag == hashlib.md5(body).hexdigest()


async def test_parallel_deletes_and_puts_leave_all_or_nothing(world):
    """A key that is put and deleted concurrently is whole, or missing [CONSISTENCY]."""
    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(world.bucket.put, f"in/{number % 3}.gz", b"x" * 1000)
            group.start_soon(world.bucket.delete, [f"in/{number % 3}.gz"])
    told = [message["action"] for _, message in await world.told()]
    there = await keys(world.bucket)
    for key in there:
        assert await text(await world.bucket.get(key)) == b"x" * 1000
    assert told.count("PutObject") == 10
    assert told.count("DeleteObject") <= 10 - len(there)


# --- copy -----------------------------------------------------------------------------------------


async def test_a_copy_has_bytes_and_metadata_of_its_own(world):
    """From any bucket to any other, or onto itself; a missing source returns None [EVENTS]."""
    other = world.other("other-bucket")
    http = HttpMetadata("text/x")
    source = await world.bucket.put("a", b"x", http_metadata=http, custom_metadata={"k": "v"})
    copied = await other.copy(world.bucket, "a", "b")
    assert (copied.key, copied.http_metadata, copied.custom_metadata) == ("b", http, {"k": "v"})
    assert copied.version != source.version
    await world.bucket.delete("a")
    assert await text(await other.get("b")) == b"x"
    assert await other.copy(world.bucket, "a", "c") is None
    await other.copy(other, "b", "b")
    assert await text(await other.get("b")) == b"x"


async def test_a_copy_is_told_with_its_source(world):
    """CopyObject, with the source of the copy [EVENTS]."""
    await world.other("other-bucket").put("x", b"x")
    await world.bucket.copy(world.other("other-bucket"), "x", "in/a.gz")
    ((queue, message),) = await world.told()
    assert (queue, message["action"]) == ("ingest", "CopyObject")
    assert message["copySource"] == {"bucket": "other-bucket", "object": "x"}
    assert message["object"] == {"key": "in/a.gz", "size": 1, "eTag": hashlib.md5(b"x").hexdigest()}


# --- delete ---------------------------------------------------------------------------------------


async def test_delete_removes_one_or_many(bucket):
    """One key or a list; missing and repeated keys are ignored [API]."""
    for key in "abcd":
        await bucket.put(key, b"x")
    await bucket.delete("a")
    await bucket.delete(["b", "missing", "b", "c"])
    await bucket.delete([])
    assert await keys(bucket) == ["d"]


async def test_delete_takes_at_most_1000_keys(bucket):
    """1,001 keys are refused, and nothing is deleted [API]."""
    await bucket.put("0", b"x")
    with pytest.raises(PlatformError, match=r"delete: MaxKeys .* \(10022\)"):
        await bucket.delete([str(number) for number in range(1001)])
    assert await keys(bucket) == ["0"]
    await bucket.delete([str(number) for number in range(1000)])
    assert await keys(bucket) == []


# --- list -----------------------------------------------------------------------------------------

TREE = ["a", "a/1", "a/2", "a/b/3", "a0", "b", "c/1", "c/2", "é/1"]


@pytest.fixture
async def tree(bucket):
    """A bucket with some keys that share prefixes."""
    for key in TREE:
        await bucket.put(key, key.encode(), custom_metadata={"k": key})
    return bucket


async def test_an_empty_bucket_lists_nothing(bucket):
    """Also a bucket that was never used [API]."""
    listing = await bucket.list()
    assert listing.objects == []
    assert (listing.truncated, listing.cursor, listing.delimited_prefixes) == (False, None, [])


async def test_list_goes_by_prefix(tree):
    """A prefix is a string, not a folder [API]."""
    assert await keys(tree) == TREE
    assert await keys(tree, prefix="a/") == ["a/1", "a/2", "a/b/3"]
    assert await keys(tree, prefix="a") == TREE[:5]
    assert await keys(tree, prefix="é") == ["é/1"]
    assert await keys(tree, prefix="a/1/") == []


async def test_list_goes_on_at_the_cursor(tree):
    """Pages of any size add up to the whole, and only the last has no cursor [API]."""
    for size in (1, 4, len(TREE)):
        found: list[str] = []
        cursor = None
        while True:
            listing = await tree.list(limit=size, cursor=cursor)
            found += [one.key for one in listing.objects]
            assert listing.truncated is (listing.cursor is not None)
            if not listing.truncated:
                break
            assert len(listing.objects) == size
            cursor = listing.cursor
        assert found == TREE


async def test_list_starts_after_a_key(tree):
    """startAfter is exclusive and need not exist; a cursor beyond it takes precedence [API]."""
    assert await keys(tree, start_after="a/2") == TREE[3:]
    assert await keys(tree, start_after="a/zzz") == TREE[4:]
    assert await keys(tree, start_after="é/1") == []
    cursor = (await tree.list(limit=5)).cursor
    assert await keys(tree, start_after="a", cursor=cursor) == TREE[5:]


async def test_a_delimiter_folds_keys(tree):
    """Keys with the delimiter after the prefix appear once, as a delimited prefix [API]."""
    listing = await tree.list(delimiter="/")
    assert [one.key for one in listing.objects] == ["a", "a0", "b"]
    assert listing.delimited_prefixes == ["a/", "c/", "é/"]
    inner = await tree.list(prefix="a/", delimiter="/")
    assert [one.key for one in inner.objects] == ["a/1", "a/2"]
    assert inner.delimited_prefixes == ["a/b/"]


async def test_folded_pages_count_prefixes_and_never_repeat_them(tree):
    """Objects and prefixes share the limit; a new key does not repeat its prefix [API]."""
    seen = []
    cursor = None
    while True:
        listing = await tree.list(delimiter="/", limit=1, cursor=cursor)
        seen += [one.key for one in listing.objects] + listing.delimited_prefixes
        await tree.put("a/zzz", b"")
        if not listing.truncated:
            break
        cursor = listing.cursor
    assert seen == ["a", "a/", "a0", "b", "c/", "é/"]


async def test_a_folded_prefix_may_stand_for_many_keys(bucket):
    """A prefix with more keys than a page of the store is one entry [API]."""
    async with anyio.create_task_group() as group:
        for number in range(150):
            group.start_soon(bucket.put, f"many/{number:03}", b"")
        group.start_soon(bucket.put, "next", b"")
    listing = await bucket.list(delimiter="/")
    assert listing.delimited_prefixes == ["many/"]
    assert [one.key for one in listing.objects] == ["next"]


async def test_list_shows_metadata_on_request(tree):
    """Only the fields that `include` names; the rest is as in head [API]."""
    await tree.put("a", b"", http_metadata=HttpMetadata("text/x"), custom_metadata={"k": "v"})
    full = await tree.head("a")
    bare, http, custom, both = [
        (await tree.list(limit=1, include=include)).objects[0]
        for include in (
            [],
            ["httpMetadata"],
            ["customMetadata"],
            ["customMetadata", "httpMetadata"],
        )
    ]
    assert bare == msgspec.structs.replace(full, http_metadata=HttpMetadata(), custom_metadata={})
    assert http == msgspec.structs.replace(full, custom_metadata={})
    assert custom == msgspec.structs.replace(full, http_metadata=HttpMetadata())
    assert both == full


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_list_refuses_impossible_limits(bucket, limit):
    """A page has 1 to 1,000 entries [MINIFLARE]."""
    with pytest.raises(PlatformError) as refused:
        await bucket.list(limit=limit)
    assert refused.value.message == "list: MaxKeys params must be positive integer <= 1000. (10022)"


@pytest.mark.parametrize("cursor", ["", "not a cursor", "eA==", "/w==", "é"])
async def test_list_refuses_a_foreign_cursor(bucket, cursor):
    """A cursor of no listing is an error, not the first page [EDGESIM]."""
    with pytest.raises(PlatformError, match="list: The specified cursor is not valid"):
        await bucket.list(cursor=cursor)


async def test_list_refuses_an_unknown_include(bucket):
    """An unknown value is an error, as on the platform [WORKERD]."""
    with pytest.raises(PlatformError, match="Unsupported include value etag") as refused:
        await bucket.list(include=["etag"])
    assert refused.value.name == "RangeError"


async def test_long_keys_are_listed_in_order(bucket):
    """Also keys whose common prefix is longer than a server's names may be [API]."""
    long = sorted(f"{'x' * 250}{tail}" for tail in ("", "/", "/a", "a", "b/c", "é", "-" * 700))
    for key in [*reversed(long), "x", "y"]:
        await bucket.put(key, b"")
    assert await keys(bucket) == ["x", *long, "y"]
    assert await keys(bucket, prefix="x" * 250 + "/") == [long[2], long[3]]
    first = await bucket.list(limit=3)
    assert await keys(bucket, cursor=first.cursor) == [*long[2:], "y"]
    assert await keys(bucket, start_after=long[-2]) == [long[-1], "y"]


# --- usage ----------------------------------------------------------------------------------------


async def test_usage_counts_objects_and_bytes(world):
    """Overwrites and deletes are counted; only non-empty buckets are listed [EDGESIM]."""
    assert await world.driver.usage("events") == (0, 0)
    assert await world.driver.buckets() == []
    await world.bucket.put("a", b"12345")
    await world.bucket.put("a", b"123")
    await world.bucket.put("b", b"4")
    assert await world.driver.usage("events") == (2, 4)
    assert await world.driver.buckets() == ["events"]
    await world.bucket.delete("a")
    assert await world.driver.usage("events") == (1, 1)
    await world.bucket.delete("b")
    assert await world.driver.buckets() == []


# --- notifications --------------------------------------------------------------------------------


async def test_a_put_is_told_in_the_platform_s_words(world):
    """The message of a put has the object's key, size and etag [EVENTS]."""
    await world.bucket.put("in/a.gz", b"hello")
    (entry,) = await world.driver.outbox(10)
    assert entry.queue == "ingest"
    assert entry.body == (
        b'{"account":"account-1","action":"PutObject","bucket":"events","object":{"key":"in/a.gz",'
        b'"size":5,"eTag":"5d41402abc4b2a76b9719d911017c592"},'
        b'"eventTime":"' + _iso(NOW_MS).encode() + b'"}'
    )


async def test_a_delete_is_told_with_the_key_alone(world):
    """Each deleted object has a notification, missing keys have none [EVENTS]."""
    await world.bucket.put("in/a", b"x")
    await world.bucket.delete(["in/a", "in/missing"])
    ((queue, message),) = await world.told()
    assert queue == "audit"
    assert message == {
        "account": "account-1",
        "action": "DeleteObject",
        "bucket": "events",
        "object": {"key": "in/a"},
        "eventTime": _iso(NOW_MS),
    }


def _iso(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1000:03}Z"


async def test_only_matching_keys_are_told(world):
    """Prefix and suffix must both match, and only in the rule's bucket [EVENTS]."""
    for key in ("in/a.gz", "in/.gz", "in/a.json", "out/a.gz", "In/a.gz"):
        await world.bucket.put(key, b"")
    await world.other("other-bucket").put("in/a.gz", b"")
    told = [message["object"]["key"] for _, message in await world.told()]
    assert told == ["in/a.gz", "in/.gz"]


async def test_a_put_that_does_not_happen_is_not_told(world):
    """A refused body or a failed precondition creates no notification [EVENTS]."""
    with pytest.raises(PlatformError):
        await world.bucket.put("in/a.gz", b"x", checksums={"md5": "00" * 16})
    never = Conditional(etag_matches=("other",))
    assert await world.bucket.put("in/a.gz", b"x", only_if=never) is None
    assert await world.told() == []


async def test_an_object_and_its_notifications_are_one(world):
    """If a notification cannot be stored, the object is not stored either [EDGESIM]."""
    old = await world.bucket.put("a", b"old")
    new = msgspec.structs.replace(old, version="new", size=3)
    twice = [OutboxEntry("same id", "ingest", b"{}")] * 2
    with pytest.raises(RunError):
        await world.driver.put("events", "a", chunks(b"new"), lambda: Finished(new, twice))
    assert await world.bucket.head("a") == old
    assert await text(await world.bucket.get("a")) == b"old"
    assert await world.told() == []


async def test_the_outbox_is_oldest_first_and_forgets_what_is_settled(world):
    """A limited read returns the oldest; settled ids go, unknown ids are ignored [EDGESIM]."""
    for number in range(5):
        await world.bucket.put(f"in/{number}.gz", b"")
    first = await world.driver.outbox(2)
    assert [json.loads(one.body)["object"]["key"] for one in first] == ["in/0.gz", "in/1.gz"]
    await world.driver.settle([first[0].id, "unknown"])
    left = [message["object"]["key"] for _, message in await world.told()]
    assert left == ["in/1.gz", "in/2.gz", "in/3.gz", "in/4.gz"]


async def test_the_relay_moves_the_outbox_to_the_queues(world):
    """Each notification reaches its queue, also those stored before the relay started [EVENTS]."""
    await world.bucket.put("in/1.gz", b"")
    arrived: list[tuple[str, str]] = []
    changed = anyio.Event()

    async def send(queue: str, body: bytes) -> None:
        nonlocal changed
        arrived.append((queue, json.loads(body)["object"]["key"]))
        changed.set()
        changed = anyio.Event()

    async def arrives(count: int) -> None:
        with anyio.fail_after(60):
            while len(arrived) < count or await world.notifications.pending(world.driver):
                with anyio.move_on_after(0.05):
                    await changed.wait()

    async with anyio.create_task_group() as group:
        group.start_soon(world.notifications.relay, world.driver, send)
        await arrives(1)
        await world.bucket.put("in/2.gz", b"")
        await arrives(2)
        await world.bucket.delete("in/1.gz")
        await arrives(3)
        group.cancel_scope.cancel()
    assert arrived == [("ingest", "in/1.gz"), ("ingest", "in/2.gz"), ("audit", "in/1.gz")]


# --- persistence ----------------------------------------------------------------------------------


async def test_objects_and_notifications_survive_the_process(durable):
    """Objects and undelivered notifications are there when the store is reopened [CONSISTENCY]."""
    async with durable.open() as world:
        put = await world.bucket.put("in/a.gz", b"hello", custom_metadata={"é": "☃"})
        told = await world.driver.outbox(10)
    async with durable.open() as world:
        assert await world.bucket.head("in/a.gz") == put
        assert await text(await world.bucket.get("in/a.gz")) == b"hello"
        assert await world.driver.outbox(10) == told
        await world.driver.settle([told[0].id])
    async with durable.open() as world:
        assert await world.driver.outbox(10) == []


async def test_a_slow_body_delays_no_other_writer(bucket):
    """A put whose body is under way does not hold its key; the put that ends last remains."""
    begun, go_on = anyio.Event(), anyio.Event()

    async def slow():
        yield b"slow "
        begun.set()
        await go_on.wait()
        yield b"body"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bucket.put, "k", Stream(slow()))
        await begun.wait()
        with anyio.fail_after(60):
            await bucket.put("k", b"quick")
        assert await text(await bucket.get("k")) == b"quick"
        await bucket.delete("k")
        go_on.set()
    assert await text(await bucket.get("k")) == b"slow body"

"""The S3 driver: objects on the server, conditions, interrupted writes and configuration errors."""

import hashlib
import io
import socket
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import anyio
import msgspec
import pytest
from aiohttp.abc import ResolveResult
from aiohttp.resolver import DefaultResolver
from miniopy_async.api import Minio
from miniopy_async.commonconfig import CopySource
from miniopy_async.error import S3Error
from multidict import CIMultiDict
from structlog.testing import capture_logs

from edgesim.clock import Clock
from edgesim.database import Database
from edgesim.errors import ConfigError, RunError, UsageError
from edgesim.model import HttpMetadata, R2Object
from edgesim.r2.driver import OutboxEntry
from edgesim.r2.options import Conditional, Range
from edgesim.r2.outbox import SCHEMA, Intent, Outbox
from edgesim.r2.s3 import driver as s3_driver
from edgesim.r2.s3.driver import open_r2
from edgesim.r2.s3.spool import Spool
from edgesim.r2.s3.store import S3Store
from edgesim.r2.s3.url import read_url
from edgesim.urls import redact
from tests.ports import reserved_port
from tests.r2_world import Store, World, eventually, text
from tests.servers_s3 import S3Server, seaweedfs, seaweedfs_process

pytestmark = [pytest.mark.anyio, pytest.mark.s3_server]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for this file."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


async def test_an_object_is_one_object_on_the_server(server, tmp_path):
    """An object is stored under the prefix and an ordered name, with its bytes and content type."""
    store = Store.s3(server, tmp_path)
    prefix = store.url.partition("prefix=")[2]
    async with store.open() as world:
        http = HttpMetadata("application/json", content_encoding="gzip")
        await world.bucket.put("hr=10/x.json.gz", b"\x1f\x8b", http_metadata=http)
    async with server.client() as client:
        (found,) = await client.list_objects("events", prefix=prefix, recursive=True)
        assert found.object_name == f"{prefix}hr=10.~x.json.gz"
        answer = await client.stat_object("events", found.object_name)
        assert (answer.size, answer.content_type) == (2, "application/json")


async def test_hostile_keys_stay_under_the_prefix(server, tmp_path):
    """No key reaches another bucket or another prefix."""
    store = Store.s3(server, tmp_path)
    async with server.client() as client:
        if not await client.bucket_exists("precious"):
            await client.make_bucket("precious")
        async with store.open() as world:
            for key in ("../../precious/x", "/../precious/x", "..", "../x"):
                await world.bucket.put(key, b"evil")
        assert await client.list_objects("precious", recursive=True) == []
        prefix = store.url.partition("prefix=")[2]
        assert len(await client.list_objects("events", prefix=prefix, recursive=True)) == 4


async def test_plain_keys_share_a_bucket_with_other_programs(server, tmp_path):
    """With keys=plain, names are keys, and objects of other programs have S3's own metadata."""
    store = Store.s3(server, tmp_path, "&keys=plain")
    prefix = store.url.partition("prefix=")[2].partition("&")[0]
    async with store.open() as world, server.client() as client:
        await world.bucket.put("day=1/ours.json", b"ours", custom_metadata={"a": "é"})
        theirs = f"{prefix}day=1/theirs.json"
        await client.put_object("events", theirs, io.BytesIO(b"theirs"), 6, "text/x")
        assert (await client.stat_object("events", f"{prefix}day=1/ours.json")).size == 4
        assert await text(await world.bucket.get("day=1/theirs.json")) == b"theirs"
        assert await text(await world.bucket.get("day=1/theirs.json", range=Range(1, 2))) == b"he"
        listing = await world.bucket.list(prefix="day=", include=["customMetadata", "httpMetadata"])
        ours, other = listing.objects
        assert (ours.key, ours.custom_metadata) == ("day=1/ours.json", {"a": "é"})
        assert (other.key, other.size, other.etag, other.http_metadata) == (
            "day=1/theirs.json",
            6,
            hashlib.md5(b"theirs").hexdigest(),
            HttpMetadata("text/x"),
        )


async def test_objects_of_others_are_left_alone(server, tmp_path):
    """With encoded keys, objects not written by edgesim are ignored."""
    store = Store.s3(server, tmp_path)
    prefix = store.url.partition("prefix=")[2]
    async with store.open() as world, server.client() as client:
        await world.bucket.put("ours", b"x")
        await client.put_object("events", f"{prefix}theirs", io.BytesIO(b"theirs"), 6)
        assert [one.key for one in (await world.bucket.list()).objects] == ["ours"]
        assert await world.bucket.get("theirs") is None


async def test_a_copy_made_by_others_is_not_the_object(server, tmp_path):
    """A copy made by another program is ignored: its header names another object."""
    store = Store.s3(server, tmp_path)
    prefix = store.url.partition("prefix=")[2]
    async with store.open() as world, server.client() as client:
        await world.bucket.put("a", b"x")
        await client.copy_object("events", f"{prefix}b", CopySource("events", f"{prefix}a"))
        assert [one.key for one in (await world.bucket.list()).objects] == ["a"]
        assert await world.bucket.get("b") is None


async def test_a_damaged_header_is_a_run_error(server, tmp_path):
    """A damaged edgesim header is an error with the object's name; other objects are served."""
    store = Store.s3(server, tmp_path)
    prefix = store.url.partition("prefix=")[2]
    async with store.open() as world, server.client() as client:
        await world.bucket.put("a", b"x")
        await client.put_object(
            "events", f"{prefix}b", io.BytesIO(b"y"), 1, metadata={"edgesim": "e30="}
        )
        for call in (world.bucket.get("b"), world.bucket.head("b"), world.bucket.list()):
            with pytest.raises(RunError, match="b: its edgesim header is damaged") as failed:
                await call
            assert failed.value.__cause__ is not None
        assert await text(await world.bucket.get("a")) == b"x"


async def test_a_body_that_is_damaged_on_its_way_is_refused(server, tmp_path, monkeypatch):
    """The server rejects a body that does not match its MD5; nothing is stored."""
    content = Spool.content
    async with Store.s3(server, tmp_path).open() as world:
        monkeypatch.setattr(Spool, "content", lambda spool: cast("bytes", content(spool))[::-1])
        upload = await world.bucket.create_multipart_upload("b")
        for call in (world.bucket.put("a", b"forward"), upload.upload_part(1, b"forward")):
            with pytest.raises(RunError, match="BadDigest"):
                await call
        assert await world.bucket.head("a") is None


@pytest.fixture
def named(tmp_path):
    """A server with virtual-host names: BUCKET.HOST."""
    with seaweedfs_process(tmp_path, "-s3.domainName=edgesim.test") as process:
        yield S3Server(f"edgesim.test:{process.server.address.rpartition(':')[2]}")


async def test_a_bucket_may_be_in_the_host_name(named, tmp_path, monkeypatch):
    """With style=virtual, requests go to BUCKET.HOST."""
    asked: set[str] = set()

    async def here(_resolver, host: str, port: int = 0, family: int = socket.AF_INET):
        asked.add(host)
        found = ResolveResult(
            hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0
        )
        return [found]

    monkeypatch.setattr(DefaultResolver, "resolve", here)
    async with Store.s3(named, tmp_path / "own", "&style=virtual").open() as world:
        await world.bucket.put("in/a.gz", b"x")
        assert await text(await world.bucket.get("in/a.gz")) == b"x"
        assert [one.key for one in (await world.bucket.list()).objects] == ["in/a.gz"]
    assert asked == {"edgesim.test", "events.edgesim.test"}


# --- conditions -----------------------------------------------------------------------------------


def refusing(code: str, *, stores: bool = False):
    """A client whose conditional puts fail with this code, also after storing if ``stores``."""
    put_object = Minio._put_object

    async def refuse(client, bucket, name, data, headers, query_params=None):
        conditional = {"If-Match", "If-None-Match"} & set(headers)
        if stores or not conditional:
            result = await put_object(client, bucket, name, data, headers, query_params)
        if conditional:
            raise S3Error(code, "says the test", None, None, None, cast("Any", None))
        return result

    return refuse


ABSENT = Conditional(etag_does_not_match=("*",))


async def test_of_two_nodes_that_create_one_wins(server, tmp_path):
    """Of two nodes that create a key, one succeeds: the server checks the precondition."""
    store = Store.s3(server, tmp_path)
    elsewhere = msgspec.structs.replace(store, state=tmp_path / "elsewhere")
    won: dict[str, list[str]] = {f"{number:02}": [] for number in range(20)}

    async def create(world: World, node: str) -> None:
        for key, winners in won.items():
            if await world.bucket.put(key, node.encode(), only_if=ABSENT):
                winners.append(node)

    async with store.open() as one, elsewhere.open() as other, anyio.create_task_group() as group:
        group.start_soon(create, one, "one")
        group.start_soon(create, other, "other")
    assert all(len(winners) == 1 for winners in won.values()), won
    async with store.open() as world:
        for key, (winner,) in won.items():
            assert await text(await world.bucket.get(key)) == winner.encode()


async def test_a_server_without_conditions_is_asked_once(server, tmp_path, monkeypatch):
    """Without conditional writes, preconditions hold within this process; it is logged once."""
    async with Store.s3(server, tmp_path).open() as world:
        monkeypatch.setattr(Minio, "_put_object", refusing("NotImplemented"))
        with capture_logs() as logs:
            assert await world.bucket.put("a", b"x", only_if=ABSENT)
            assert await world.bucket.put("a", b"y", only_if=ABSENT) is None
            assert await world.bucket.put("b", b"x", only_if=ABSENT)
    assert [one["event"] for one in logs] == ["the S3 server has no conditional writes"]


async def test_a_repeated_put_that_meets_itself_has_gone_well(server, tmp_path, monkeypatch):
    """A retried put whose precondition fails because of its own object is a success."""
    async with Store.s3(server, tmp_path).open() as world:
        monkeypatch.setattr(Minio, "_put_object", refusing("PreconditionFailed", stores=True))
        assert await world.bucket.put("in/a.gz", b"x", only_if=ABSENT)
        assert len(await world.driver.outbox(10)) == 1


async def test_a_put_that_loses_a_race_is_not_told(server, tmp_path, monkeypatch):
    """A put whose precondition fails is neither stored nor notified."""
    async with Store.s3(server, tmp_path).open() as world:
        monkeypatch.setattr(Minio, "_put_object", refusing("PreconditionFailed"))
        assert await world.bucket.put("in/a.gz", b"x", only_if=ABSENT) is None
        assert await world.driver.outbox(10) == []
        assert await world.bucket.head("in/a.gz") is None


async def test_an_etag_of_the_server_s_own_is_what_is_told(server, tmp_path, monkeypatch):
    """A notification has the server's etag, which need not be made of the parts' MD5s."""
    head = S3Store.head

    async def own_etag(store, bucket, name):
        headers = CIMultiDict(await head(store, bucket, name))
        headers["etag"] = '"of-its-own-1"'
        return headers

    async with Store.s3(server, tmp_path).open() as world:
        monkeypatch.setattr(S3Store, "head", own_etag)
        upload = await world.bucket.create_multipart_upload("in/a.gz")
        part = await upload.upload_part(1, b"x")
        stored = await upload.complete([(1, part.etag)])
        ((_, message),) = await world.told()
        assert message["object"]["eTag"] == stored.etag == "of-its-own-1"


# --- cached metadata ------------------------------------------------------------------------------


async def test_a_listing_asks_for_each_object_once(server, tmp_path, monkeypatch):
    """A listing reads an object's metadata once, until any client changes the object."""
    heads: list[str] = []
    head = S3Store.head

    async def counted(store, bucket, name):
        heads.append(name)
        return await head(store, bucket, name)

    async def listed(world: World) -> tuple[int, list[R2Object]]:
        heads.clear()
        found = await world.bucket.list(include=["customMetadata", "httpMetadata"])
        return len(heads), found.objects

    async def nothing_asked() -> list[R2Object]:
        asked, objects = await listed(world)
        return objects if asked == 0 else []

    store = Store.s3(server, tmp_path, "&keys=plain")
    prefix = store.url.partition("prefix=")[2].partition("&")[0]
    monkeypatch.setattr(S3Store, "head", counted)
    async with store.open() as world, server.client() as client:
        for number in range(20):
            await world.bucket.put(f"{number:02}", b"x", custom_metadata={"n": str(number)})
        assert (await listed(world))[0] == 20
        objects = await eventually(nothing_asked)
        assert [one.custom_metadata["n"] for one in objects] == [str(n) for n in range(20)]
        await world.bucket.put("05", b"x", custom_metadata={"n": "ours"})
        await client.put_object("events", f"{prefix}07", io.BytesIO(b"x"), 1, "text/theirs")
        await world.bucket.delete("09")
        asked, objects = await listed(world)
        assert asked == 2
        by_key = {one.key: one for one in objects}
        assert by_key["05"].custom_metadata == {"n": "ours"}
        assert by_key["07"].http_metadata.content_type == "text/theirs"
        assert "09" not in by_key


async def test_counting_asks_for_no_object(server, tmp_path, monkeypatch):
    """usage and buckets use the listing only; the totals of a large bucket are cached."""

    async def never(*_arguments):
        raise AssertionError("one object was asked for")

    async with Store.s3(server, tmp_path).open() as world:
        for number in range(5):
            await world.bucket.put(str(number), b"xy")
        monkeypatch.setattr(S3Store, "head", never)
        assert await world.driver.usage("events") == (5, 10)
        assert "events" in await world.driver.buckets()
        await world.bucket.put("5", b"xy")
        assert await world.driver.usage("events") == (6, 12)
        monkeypatch.setattr(s3_driver, "_COUNTED_AT_ONCE", 2)
        await world.bucket.put("6", b"xy")
        assert await world.driver.usage("events") == (6, 12)


# --- interrupted writes ---------------------------------------------------------------------------


async def known(world: World) -> Sequence[OutboxEntry]:
    """Return the outbox's entries, once no write is in doubt."""

    async def look() -> list[Sequence[OutboxEntry]]:
        return [await world.driver.outbox(10)]

    looks: list[Sequence[OutboxEntry]] = await eventually(look)
    return looks[0]


async def leave_intent(state: Path, intent: Intent) -> None:
    """Leave an in-doubt write in the outbox, as a crash before its decision would."""
    with closing(Database(state / "outbox.db", SCHEMA)) as database:
        interrupted = Outbox(database).announced([(intent, [OutboxEntry("id", "ingest", b"{}")])])
        with pytest.raises(KeyboardInterrupt):
            async with interrupted:
                raise KeyboardInterrupt


@pytest.mark.parametrize("deletes", [False, True])
@pytest.mark.parametrize("there", [False, True])
async def test_a_crash_amid_a_change_tells_of_it_if_it_happened(server, tmp_path, deletes, there):
    """An interrupted put is notified if its version is stored, a delete if it is not."""
    store = Store.s3(server, tmp_path)
    async with store.open() as world:
        put = await world.bucket.put("a", b"x")
        assert put is not None
    await leave_intent(
        store.state, Intent("events", "a", put.version if there else "other", deletes)
    )
    async with store.open() as world:
        entries = await known(world)
    assert [entry.id for entry in entries] == (["id"] if there != deletes else [])


async def test_an_intent_that_is_under_way_is_left_to_its_put(server, tmp_path, monkeypatch):
    """A poll of the outbox during a put neither sends nor drops its notification."""
    seen = []
    async with Store.s3(server, tmp_path).open() as world:

        async def look_first(*arguments, **options):
            seen.append(await world.driver.outbox(10))
            return await put_object(*arguments, **options)

        put_object = Minio._put_object
        monkeypatch.setattr(Minio, "_put_object", look_first)
        await world.bucket.put("in/a.gz", b"x")
        assert seen == [[]]
        assert len(await world.driver.outbox(10)) == 1


async def test_a_put_whose_answer_was_lost_is_told(server, tmp_path, monkeypatch):
    """A put without a reply fails, but its notification is sent, as the object is stored."""
    put_object = Minio._put_object

    async def lose_answer(*arguments, **options):
        await put_object(*arguments, **options)
        raise ConnectionResetError("connection lost")

    async with Store.s3(server, tmp_path).open() as world:
        monkeypatch.setattr(Minio, "_put_object", lose_answer)
        with pytest.raises(RunError, match="connection lost"):
            await world.bucket.put("in/a.gz", b"x")
        assert len(await world.driver.outbox(10)) == 1


async def test_a_put_that_never_arrived_is_not_told(server, tmp_path, monkeypatch):
    """A put that never reached the server fails; a later put is notified once."""

    async def fail(*_arguments, **_options):
        raise ConnectionResetError("connection lost")

    async with Store.s3(server, tmp_path).open() as world:
        with monkeypatch.context() as broken:
            broken.setattr(Minio, "_put_object", fail)
            with pytest.raises(RunError, match="connection lost"):
                await world.bucket.put("in/a.gz", b"x")
        assert await known(world) == []
        await world.bucket.put("in/a.gz", b"x")
        assert len(await world.driver.outbox(10)) == 1


# --- configuration errors -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("s3://", "write s3://HOST:PORT"),
        ("s3://host/bucket", "write s3://HOST:PORT"),
        ("s3://me:secret@host:1", "write s3://HOST:PORT"),
        ("s3://host:1?secur=false", "unknown field `secur`"),
        ("s3://host:1?secure=perhaps", r"\$.secure"),
        ("s3://host:1?keys=odd", "Invalid enum value 'odd'"),
        ("s3://host:1?style=odd", "Invalid enum value 'odd'"),
        ("s3://host:1?timeout=0", r"\$.timeout"),
    ],
)
async def test_a_wrong_url_is_a_config_error_without_its_secrets(tmp_path, url, problem):
    """Unknown options, paths and passwords in the URL are an error of one line without secrets."""
    with pytest.raises(ConfigError, match=problem) as refused:
        async with open_r2(url, Clock(), tmp_path, "a", "b"):
            pass
    assert redact(url) in str(refused.value)
    assert "secret" not in str(refused.value)


def test_cloudflare_s_own_host_needs_no_region():
    """Cloudflare's host has region auto by default; other servers are asked for theirs."""
    assert read_url("s3://id.r2.cloudflarestorage.com")[1].region == "auto"
    assert read_url("s3://id.r2.cloudflarestorage.com?region=x")[1].region == "x"
    assert read_url("s3://host:9000?secure=false")[1].region is None


async def test_keys_are_needed(tmp_path):
    """Missing keys are an error before any request."""
    with pytest.raises(UsageError, match="needs an access key and a secret key"):
        async with open_r2("s3://host:1", Clock(), tmp_path):
            pass


async def test_a_server_that_is_away_is_a_run_error_at_the_start(tmp_path):
    """An unreachable server is an error at the start, not at the first object."""
    url = f"s3://127.0.0.1:{reserved_port()}?secure=false&region=us-east-1"
    with pytest.raises(RunError, match="Cannot connect") as failed:
        async with open_r2(url, Clock(), tmp_path, "a", "b"):
            pass
    assert failed.value.__cause__ is not None


async def test_wrong_keys_are_a_run_error_at_the_start(server, tmp_path):
    """The error for wrong keys has the server's reason."""
    url = f"s3://{server.address}?secure=false&region=us-east-1"
    with pytest.raises(RunError, match=r"InvalidAccessKeyId|SignatureDoesNotMatch"):
        async with open_r2(url, Clock(), tmp_path, "nobody", "wrong"):
            pass

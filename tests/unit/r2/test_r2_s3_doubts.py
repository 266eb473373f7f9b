"""In-doubt writes: the server performs a put long after the client's timeout."""

from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from miniopy_async.api import Minio

from edgesim.clock import Clock
from edgesim.config.pipelines import PipelineConfig
from edgesim.database import Database
from edgesim.errors import RunError
from edgesim.pipelines.pipeline import Pipeline
from edgesim.r2.driver import OutboxEntry
from edgesim.r2.outbox import SCHEMA, Intent, Outbox
from edgesim.r2.s3 import doubts as doubts_module
from edgesim.r2.s3.doubts import Doubts
from tests.r2_world import Store, World, eventually, text
from tests.servers_s3 import seaweedfs

pytestmark = [pytest.mark.anyio, pytest.mark.s3_server]

Late = Callable[[], Awaitable[None]]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for this file."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
async def world(server, tmp_path):
    async with Store.s3(server, tmp_path).open() as world:
        yield world


async def settled(world: World) -> bool:
    """Return True once the outbox no longer waits for the in-doubt write; RunError until then."""
    return await world.driver.outbox(10) == [] and world.driver.in_doubt


@pytest.fixture
def late(server, monkeypatch) -> Late:
    """Let every put fail without a reply; calling the result performs them on the server."""
    kept: list[Any] = []
    put_object = Minio._put_object

    async def keep(*arguments: Any) -> Any:
        kept.append(arguments)
        raise ConnectionResetError("no reply")

    async def make() -> None:
        monkeypatch.setattr(Minio, "_put_object", put_object)
        async with server.client() as client:
            for _, *arguments in kept:
                await put_object(client, *arguments)

    monkeypatch.setattr(Minio, "_put_object", keep)
    return make


async def body(world: World, key: str) -> bytes:
    return await text(await world.bucket.get(key))


READS: dict[str, Callable[[World], Awaitable[object]]] = {
    "head": lambda world: world.bucket.head("in/a.gz"),
    "get": lambda world: body(world, "in/a.gz"),
    "list": lambda world: world.bucket.list(),
}


@pytest.mark.parametrize("read", READS)
async def test_a_reader_of_a_late_object_decides_its_put(world, late, read):
    """A read that returns the late object also decides its put, so it is notified."""
    with pytest.raises(RunError, match="no reply"):
        await world.bucket.put("in/a.gz", b"x")
    assert await eventually(lambda: settled(world))
    await late()
    await READS[read](world)
    assert [queue for queue, _ in await world.told()] == ["ingest"]
    assert not world.driver.in_doubt


async def test_a_late_object_is_found_by_itself(world, late):
    """The relay finds a late object by polling and sends its notification."""
    sent: list[str] = []

    async def send(queue: str, _body: bytes) -> None:
        sent.append(queue)

    async def is_sent() -> bool:
        return bool(sent)

    async with anyio.create_task_group() as group:
        group.start_soon(world.notifications.relay, world.driver, send)
        with pytest.raises(RunError, match="no reply"):
            await world.bucket.put("in/a.gz", b"x")
        assert await eventually(lambda: settled(world))
        await late()
        assert await eventually(is_sent)
        group.cancel_scope.cancel()
    assert sent == ["ingest"]
    assert await world.driver.outbox(10) == []


async def test_a_late_object_is_found_after_a_restart(server, tmp_path, late):
    """An in-doubt write is still known after a restart."""
    store = Store.s3(server, tmp_path)
    async with store.open() as world:
        with pytest.raises(RunError, match="no reply"):
            await world.bucket.put("in/a.gz", b"x")
        assert await eventually(lambda: settled(world))
    await late()
    async with store.open() as world:
        assert [queue for queue, _ in await world.told()] == ["ingest"]


async def test_a_late_object_of_a_pipeline_is_notified(world, late, tmp_path):
    """The Pipeline's retry finds the late object, writes no other one, and it is notified.

    A window was lost this way where a restarted server made a put 3 seconds after it gave no reply.
    """
    config = PipelineConfig(bucket="events", prefix="in", max_seconds=60)
    pipeline = Pipeline("p", config, world.bucket, tmp_path / "log", Clock())
    with closing(pipeline):
        async with anyio.create_task_group() as group:
            group.start_soon(pipeline.run)
            await pipeline.send([{"n": 1}])
            group.start_soon(pipeline.roll)
            assert await eventually(lambda: settled(world))
            await late()
            with anyio.fail_after(60):
                await pipeline.roll()
            group.cancel_scope.cancel()
    [(_, told)] = await world.told()
    found = (await world.bucket.list()).objects
    assert [each.key for each in found] == [told["object"]["key"]]


async def test_an_overwritten_late_object_is_not_taken_for_the_later_one(world, late):
    """An overwritten late put is decided by its own version; only the later put is notified."""
    with pytest.raises(RunError, match="no reply"):
        await world.bucket.put("in/a.gz", b"first")
    assert await eventually(lambda: settled(world))
    await late()
    await world.bucket.put("in/a.gz", b"second")
    assert await text(await world.bucket.get("in/a.gz")) == b"second"
    [(_, told)] = await world.told()
    assert told["object"]["size"] == len(b"second")


@pytest.fixture
def outbox(tmp_path: Path):
    with closing(Database(tmp_path / "outbox.db", SCHEMA)) as database:
        yield Outbox(database)


async def interrupted(outbox: Outbox, intent: Intent) -> None:
    with pytest.raises(RunError):
        async with outbox.announced([(intent, [OutboxEntry("id", "q", b"{}")])]):
            raise RunError("no reply")


@pytest.mark.parametrize("deletes", [False, True])
async def test_what_never_happens_is_forgotten(outbox, monkeypatch, deletes: bool):
    """An in-doubt write that never happens is dropped: a delete soon, a put after rarer polls."""
    kept = 2 * doubts_module.SETTLED_SECONDS
    monkeypatch.setattr(doubts_module, "KEPT_SECONDS", kept)
    looks: list[float] = []

    async def is_there(_intent: Intent) -> bool:
        looks.append(anyio.current_time())
        return deletes

    async def forgotten() -> bool:
        await doubts.look()
        return not outbox.undecided()

    doubts = Doubts(outbox, is_there)
    await interrupted(outbox, Intent("b", "a", "v", deletes))
    assert await eventually(forgotten)
    assert outbox.oldest(10) == []
    lasted = looks[-1] - looks[0]
    assert lasted >= (doubts_module.SETTLED_SECONDS if deletes else kept)
    if not deletes:
        assert len([look for look in looks if look >= looks[0] + kept / 2]) <= 3

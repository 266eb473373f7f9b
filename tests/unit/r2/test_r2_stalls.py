"""Operations on a large bucket do not block the event loop.

Work is counted in SQLite's own steps, not in time, so a loaded machine does not matter.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from edgesim.r2.bucket import Bucket
from edgesim.r2.driver import OutboxEntry
from edgesim.r2.local.indexed import IndexedR2
from tests.r2_world import Store, World

pytestmark = pytest.mark.anyio

OBJECTS = 4000
STEPS_MAX = 5_000
"""Maximum steps of SQLite's virtual machine in one turn of the event loop: some milliseconds."""
_EVERY = 50


class Probe:
    """Counts SQLite's steps, and the maximum between two turns of the event loop."""

    def __init__(self, driver: IndexedR2) -> None:
        self.steps = self.worst = self.turns = 0
        self._turn = 0
        driver._database._connection.set_progress_handler(self._count, _EVERY)

    def _count(self) -> int:
        self._turn += _EVERY
        self.steps += _EVERY
        self.worst = max(self.worst, self._turn)
        return 0

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(0)
            self._turn = 0
            self.turns += 1


@asynccontextmanager
async def probed(world: World) -> AsyncIterator[Probe]:
    assert isinstance(world.driver, IndexedR2)
    probe = Probe(world.driver)
    task = asyncio.create_task(probe.watch())
    await asyncio.sleep(0)
    yield probe
    task.cancel()


def key(number: int) -> str:
    """A key below one of 200 small delimited prefixes or one very large one."""
    return f"many/{number:05}" if number % 2 else f"{number % 400:03}/{number:05}"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A bucket of many objects."""
    async with Store.memory().open() as world:
        for number in range(OBJECTS):
            await world.bucket.put(key(number), b"x")
        yield world


async def everything(bucket: Bucket, delimiter: str | None = None, limit: int = 1000) -> int:
    cursor, entries = None, 0
    while True:
        page = await bucket.list(cursor=cursor, delimiter=delimiter, limit=limit)
        entries += len(page.objects) + len(page.delimited_prefixes)
        cursor = page.cursor
        if cursor is None:
            return entries


async def delete_many(bucket: Bucket) -> int:
    await bucket.delete([key(number) for number in range(1000)])
    return 1000


OPERATIONS: dict[str, tuple[Callable[[Bucket], Awaitable[int]], int]] = {
    "list": (everything, OBJECTS),
    "list in small pages": (lambda bucket: everything(bucket, limit=100), OBJECTS),
    "list delimited": (lambda bucket: everything(bucket, "/"), 201),
    "delete": (delete_many, 1000),
}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_long_operations_let_others_run(world, name):
    """A listing or a large delete yields to the event loop in short turns."""
    operation, expected = OPERATIONS[name]
    async with probed(world) as probe:
        assert await operation(world.bucket) == expected
        assert probe.steps > 1000
        assert probe.worst < STEPS_MAX
        assert probe.turns >= min(expected, 1000) // 200


async def test_usage_does_not_count_rows(world):
    """Totals and bucket names take few steps, independent of the number of objects."""
    async with probed(world) as probe:
        assert await world.driver.usage("events") == (OBJECTS, OBJECTS)
        assert await world.driver.buckets() == ["events"]
        assert probe.steps < 500
    await delete_many(world.bucket)
    await world.bucket.put(key(3000), b"longer")
    assert await world.driver.usage("events") == (OBJECTS - 1000, OBJECTS - 1000 + 5)


async def test_a_put_or_delete_does_not_depend_on_the_number_of_objects(world):
    """A put or delete in a large bucket takes a few hundred steps."""
    async with probed(world) as probe:
        await world.bucket.put("new", b"x")
        await world.bucket.put("new", b"y")
        await world.bucket.delete("new")
        assert probe.worst < 1500


async def test_a_full_outbox_is_relayed_in_short_turns(world):
    """The relay yields for every notification, even if the queue never waits."""
    for number in range(300):
        await world.bucket.put(f"in/{number}.gz", b"x")
    sent: list[tuple[str, bytes]] = []
    turns = 0

    async def send(queue: str, body: bytes) -> None:
        sent.append((queue, body))

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    tasks = [
        asyncio.create_task(count()),
        asyncio.create_task(world.notifications.relay(world.driver, send)),
    ]
    while await world.notifications.pending(world.driver):  # noqa: ASYNC110 (every turn counts)
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    assert len(sent) == 300
    assert turns >= 300


async def test_undecided_changes_are_found_without_reading_the_outbox(world):
    """Finding in-doubt writes takes few steps with a long outbox."""
    outbox = world.driver._objects.outbox
    outbox.add([OutboxEntry(str(number), "ingest", b"{}") for number in range(3000)])
    async with probed(world) as probe:
        assert outbox.undecided() == []
        assert probe.steps < 500


async def test_a_start_works_in_short_turns(tmp_path, monkeypatch):
    """The removal of left-over blobs at a start yields to the event loop."""
    monkeypatch.setattr("edgesim.durable.flush", lambda *_: None)
    monkeypatch.setattr("edgesim.durable.flush_folder", lambda _: None)
    monkeypatch.setattr("edgesim.durable.sqlite_pragma", lambda: "PRAGMA synchronous = OFF")
    store = Store.file(tmp_path)
    async with store.open() as world:
        for number in range(1500):
            await world.bucket.put(key(number), b"x")
    for number in range(100):
        (tmp_path / "r2" / "blobs" / f"half-{number}").write_bytes(b"half")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count())
    async with store.open() as world:
        task.cancel()
        assert await everything(world.bucket) == 1500
    assert turns >= 1500 // 200 + 1500 // 500 + 100
    assert len(list((tmp_path / "r2" / "blobs").iterdir())) == 1500

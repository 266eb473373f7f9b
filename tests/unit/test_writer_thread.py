"""A store's writer thread: order, shared commits, cancellation, and a responsive event loop."""

import asyncio
import contextlib
import sqlite3
import threading

import anyio
import pytest

from edgesim.clock import Clock
from edgesim.config.pipelines import PipelineConfig
from edgesim.errors import RunError
from edgesim.pipelines.pipeline import Pipeline
from edgesim.queues.driver import NewMessage
from edgesim.queues.sqlite.driver import SqliteQueue, open_queues
from edgesim.r2.local.indexed import IndexedR2
from edgesim.replay.virtual_loop import run_virtual
from edgesim.writer_thread import WriterThread
from tests.loops import on_both_loops  # noqa: F401 (every test here runs on both)
from tests.r2_world import Store

pytestmark = pytest.mark.anyio


class Barrier:
    """Blocks a thread until the event loop has had a turn; fails on the loop's own thread."""

    def __init__(self):
        self.passed = 0
        self._loop = asyncio.get_running_loop()

    def wait(self, *_):
        opened = threading.Event()
        self._loop.call_soon_threadsafe(opened.set)
        # On the loop's own thread this times out.
        assert opened.wait(60), "the event loop stands still"
        self.passed += 1


async def gate():
    """Return (begun, opened, step): the step sets ``begun`` and blocks until ``opened`` is set."""
    begun, opened = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def step():
        loop.call_soon_threadsafe(begun.set)
        assert opened.wait(60)

    return begun, opened, step


async def test_the_loop_goes_on_while_a_pipeline_is_synced(tmp_path, monkeypatch):
    """Send, the end of a window and the removal of its file wait for the disk in a thread."""

    class Bucket:
        async def head(self, key):
            return None

        async def put(self, key, body, **options):
            async for _ in body:
                pass

    barrier = Barrier()
    pipeline = Pipeline("p", PipelineConfig(bucket="b"), Bucket(), tmp_path / "wal", Clock())
    monkeypatch.setattr("edgesim.system.sync_file", barrier.wait)
    monkeypatch.setattr("edgesim.durable.os.fsync", barrier.wait)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pipeline.run)
        await pipeline.send([{"n": 1}])
        await pipeline.roll()
        tasks.cancel_scope.cancel()
    pipeline.close()
    assert barrier.passed >= 5


async def test_the_loop_goes_on_while_a_queue_commits(tmp_path):
    """Every call that changes the store waits for its commit in a thread."""
    barrier = Barrier()
    async with open_queues(f"sqlite:{tmp_path}/q.db", Clock()) as driver:
        assert isinstance(driver, SqliteQueue)
        driver._connection.set_trace_callback(
            lambda sql: barrier.wait() if sql == "COMMIT" else None
        )
        new = [NewMessage(str(number), b"x", "bytes", 1, 0) for number in range(4)]
        await driver.send("q", new)
        a, b, c, _ = await driver.lease("q", 4, 1, 2)
        await driver.ack("q", [a.lease_id])
        await driver.release("q", [b.lease_id], 1)
        await driver.move("q", [c.lease_id], "other", 1)
        await driver.redrive("other", "q", 9, 1)
        await driver.expire("q", 2)
        await driver.purge("q")
        driver._connection.set_trace_callback(None)
    assert barrier.passed >= 8


async def test_the_loop_goes_on_while_a_bucket_commits(tmp_path, monkeypatch):
    """Put, delete and uploads wait for the sync of blobs and of the index in a thread."""
    barrier = Barrier()
    async with Store.file(tmp_path).open() as world:
        assert isinstance(world.driver, IndexedR2)
        index = world.driver._database._connection
        index.set_trace_callback(lambda sql: barrier.wait() if sql == "COMMIT" else None)
        monkeypatch.setattr("edgesim.system.sync_file", barrier.wait)
        monkeypatch.setattr("edgesim.durable.os.fsync", barrier.wait)
        await world.bucket.put("a", b"x")
        upload = await world.bucket.create_multipart_upload("b")
        part = await world.bucket.resume_multipart_upload("b", upload.upload_id).upload_part(
            1, b"x"
        )
        await world.bucket.resume_multipart_upload("b", upload.upload_id).complete(
            [(part.number, part.etag)]
        )
        await world.bucket.delete(["a", "b"])
        monkeypatch.undo()
        index.set_trace_callback(None)
    assert barrier.passed >= 5 + 3 * 2


async def test_steps_run_in_the_order_of_the_calls():
    """Steps run in the order of the calls, also those that arrive while others run."""
    thread, ran = WriterThread("test"), []

    async def call(number):
        await thread.run(lambda: ran.append(number))

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(call, number)
            if number % 7 == 0:
                await anyio.lowlevel.checkpoint()
    assert ran == list(range(50))
    thread.close()


async def test_an_error_is_its_callers():
    """A failed step raises to its caller only; the other callers get their results."""
    thread = WriterThread("test")
    results = await asyncio.gather(
        *(thread.run(step) for step in (lambda: 1, lambda: 1 / 0, lambda: 3)),
        return_exceptions=True,
    )
    assert (results[0], type(results[1]), results[2]) == (1, ZeroDivisionError, 3)
    thread.close()


@pytest.mark.parametrize("by", ["scope", "task"])
async def test_a_cancelled_step_ends_first(by):
    """A caller cancelled during its step gets the result first, then the cancellation."""
    thread, seen = WriterThread("test"), []
    begun, opened, step = await gate()

    async def call():
        await thread.run(step)
        seen.append("result")
        await anyio.lowlevel.checkpoint()
        seen.append("not cancelled")

    async with anyio.create_task_group() as tasks:
        if by == "scope":
            tasks.start_soon(call)
        else:
            task = asyncio.get_running_loop().create_task(call())
        await begun.wait()
        tasks.cancel_scope.cancel() if by == "scope" else task.cancel()
        threading.Timer(0.05, opened.set).start()
    if by == "task":
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1
    assert seen == ["result"]
    thread.close()


async def test_steps_after_the_end_run_in_place():
    """After the thread is closed, a step runs on the calling thread."""
    thread = WriterThread("test")
    assert await thread.run(threading.get_ident) != threading.get_ident()
    thread.close()
    assert await thread.run(threading.get_ident) == threading.get_ident()


async def test_sends_that_wait_share_one_commit(tmp_path):
    """Concurrent sends share one commit, and one that fails does not affect the others."""
    commits = []
    async with open_queues(f"sqlite:{tmp_path}/q.db", Clock()) as driver:
        assert isinstance(driver, SqliteQueue)
        driver._connection.set_trace_callback(
            lambda sql: commits.append(sql) if sql == "COMMIT" else None
        )

        async def send(name):
            await driver.send("q", [NewMessage(name, b"x", "bytes", 1, 0)])

        await asyncio.gather(*(send(f"a{number}") for number in range(20)))
        assert len(commits) == 1
        results = await asyncio.gather(
            *(send(name) for name in ("b0", "a7", "b1", "b2")), return_exceptions=True
        )
        driver._connection.set_trace_callback(None)
        assert [type(result) for result in results] == [type(None), RunError, *[type(None)] * 2]
        assert (await driver.depth("q")).messages == 23
        assert len(await driver.peek("q", 100)) == 23
    with contextlib.closing(sqlite3.connect(tmp_path / "q.db")) as db:
        numbers = db.execute("SELECT count(*), count(DISTINCT seq) FROM message").fetchone()
    assert numbers == (23, 23)


def test_a_virtual_loop_has_no_threads():
    """On a virtual loop a step runs on the calling thread, so that a replay is deterministic."""

    async def run(_):
        thread = WriterThread("test")
        assert await thread.run(threading.get_ident) == threading.get_ident()
        thread.close()

    run_virtual(run)

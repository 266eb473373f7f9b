"""A purge of a SQLite store hides messages at once and removes them in the background."""

import contextlib
import signal
import sqlite3
import subprocess
import sys

import anyio
import pytest

from edgesim.clock import Clock
from edgesim.model import Message
from edgesim.queues.driver import Depth, NewMessage
from edgesim.queues.sqlite.driver import open_queues, open_store
from edgesim.queues.sqlite.file import FREE_PAGES_KEPT
from edgesim.queues.sqlite.steps import STEP_ROWS
from tests.loops import on_both_loops  # noqa: F401 (every test here runs on both)

pytestmark = pytest.mark.anyio

MANY = 4 * STEP_ROWS
SMALL = 1.2 * FREE_PAGES_KEPT * 4096
"""Upper limit of a file's size after its space was freed, in bytes."""
KILLED_BETWEEN_STEPS = """
import os, signal, sys
import anyio
from edgesim.clock import Clock
from edgesim.queues.driver import NewMessage
from edgesim.queues.sqlite.driver import SqliteQueue, open_queues

async def main():
    async with open_queues(f"sqlite:{sys.argv[1]}", Clock()) as driver:
        for start in range(0, int(sys.argv[2]), 500):
            names = [f"q-{n}" for n in range(start, start + 500)]
            await driver.send("q", [NewMessage(n, b"x" * 9000, "bytes", 1, 0) for n in names])
        await driver.send("other", [NewMessage("kept", b"x", "bytes", 1, 0)])
        if sys.argv[3] == "before the commit":
            replace = driver._names.replace
            driver._names.replace = lambda queue: [replace(queue), die()]
        else:
            remove, left = driver._remove_some, [int(sys.argv[3])]
            def some():
                if not left[0]:
                    die()
                left[0] -= 1
                return remove()
            driver._remove_some = some
        await driver.purge("q")
        await driver.send("q", [NewMessage("new", b"x", "bytes", 1, 0)])
        print("purged", flush=True)
        await anyio.sleep_forever()

def die():
    os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main)
"""


@pytest.fixture
def path(tmp_path):
    """The path of a file that does not exist yet."""
    return tmp_path / "queues.db"


async def fill(driver, queue, count=MANY, size=10):
    """Store messages that are visible now."""
    for start in range(0, count, STEP_ROWS):
        names = [f"{queue}-{n}" for n in range(start, min(start + STEP_ROWS, count))]
        await driver.send(
            queue, [NewMessage(name, b"x" * size, "bytes", start, 0) for name in names]
        )


def rows(path):
    """The number of messages in the file of a closed store."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT count(*) FROM message").fetchone()[0]


async def removed(driver):
    """Wait until every purged message is removed."""
    with anyio.fail_after(60):
        while driver._names.purged is not None:  # noqa: ASYNC110 (no event announces it)
            await anyio.sleep(0.01)


async def assert_empty(driver, queue):
    """Assert that no operation finds a message of the queue."""
    assert await driver.lease(queue, 10, 10, 20) == []
    assert await driver.peek(queue, 10) == []
    assert await driver.depth(queue) == Depth(0, 0)
    assert queue not in await driver.names()
    assert await driver.redrive(queue, "elsewhere", 1_000_000, 10) == 0
    assert await driver.expire(queue, 1_000_000) == 0


async def test_purged_messages_are_invisible_before_they_are_removed(path):
    """No operation finds a purged message that is still in the file, leased or not."""
    with open_store(str(path)) as driver:  # without the background task
        await fill(driver, "q")
        leases = [message.lease_id for message in await driver.lease("q", 20, 10, 20)]
        assert await driver.purge("q") == MANY
        await assert_empty(driver, "q")
        assert await driver.ack("q", leases[:5]) == 0
        assert await driver.release("q", leases[5:10], 0) == 0
        assert await driver.move("q", leases[10:], "elsewhere", 0) == 0
        await assert_empty(driver, "elsewhere")
    assert rows(path) == MANY


async def test_a_purged_queue_goes_on(path):
    """A queue works after many purges, also with the ids of purged messages."""
    async with open_queues(f"sqlite:{path}", Clock()) as driver:
        for _ in range(5):
            await fill(driver, "q", 700)
            await fill(driver, "other", 1)
            (moving,) = await driver.lease("other", 1, 10, 20)
            assert await driver.move("other", [moving.lease_id], "q", 10) == 1
            assert (await driver.depth("q")).messages == 701
            assert len(await driver.lease("q", 700, 10, 20)) == 700
            assert await driver.purge("q") == 701
            await assert_empty(driver, "q")
        await removed(driver)
    assert rows(path) == 0


async def test_a_purge_ends_a_redrive(path):
    """A purge during a redrive: each message is moved or purged, never both."""
    async with open_queues(f"sqlite:{path}", Clock()) as driver:
        await fill(driver, "q", 2 * MANY)
        found = {}

        async def redrive():
            found["moved"] = await driver.redrive("q", "to", 2 * MANY, 10)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(redrive)
            while not (await driver.depth("to")).messages:
                await anyio.lowlevel.checkpoint()
            purged = await driver.purge("q")
        assert found["moved"] + purged == 2 * MANY
        assert found["moved"] > 0
        assert (await driver.depth("to")).messages == found["moved"]
        await assert_empty(driver, "q")


async def test_a_purge_overtakes_a_lease_of_many(path):
    """A purge during a lease in several steps: the purged messages are not delivered."""
    with open_store(str(path)) as driver:
        await fill(driver, "q")
        taken: list[Message] = []

        async def lease():
            taken.extend(await driver.lease("q", MANY, 10, 20))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lease)
            await anyio.lowlevel.checkpoint()  # the first of its steps is running
            assert await driver.purge("q") == MANY
        assert taken == []


def killed(path, moment):
    """Run a process that purges and is killed at that moment; return its output."""
    command = [sys.executable, "-c", KILLED_BETWEEN_STEPS, path, str(MANY), str(moment)]
    process = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    return process.stdout


@pytest.mark.parametrize("steps", [0, 1, 3])
async def test_a_kill_amid_the_removal(path, steps):
    """After a kill during the removal, the next start hides and removes the rest."""
    await anyio.to_thread.run_sync(killed, path, steps)
    left = rows(path)
    assert left >= MANY - steps * STEP_ROWS
    assert path.stat().st_size > 2 * SMALL
    async with open_queues(f"sqlite:{path}", Clock()) as driver:
        assert [m.id for m in await driver.peek("q", 10)] in ([], ["new"])
        assert (await driver.depth("q")).messages in {0, 1}
        assert [m.id for m in await driver.lease("other", 10, 10, 20)] == ["kept"]
        await driver.purge("q")
        await assert_empty(driver, "q")
        await removed(driver)
        with anyio.fail_after(60):
            while path.stat().st_size > SMALL:  # noqa: ASYNC110 (no event announces it)
                await anyio.sleep(0.01)
    assert rows(path) == 1


async def test_a_kill_before_the_commit_has_purged_nothing(path):
    """A kill before the commit keeps every message."""
    await anyio.to_thread.run_sync(killed, path, "before the commit")
    async with open_queues(f"sqlite:{path}", Clock()) as driver:
        assert (await driver.depth("q")).messages == MANY


async def test_an_earlier_edgesim_refuses_a_purged_store(path):
    """A purge raises the schema version: an earlier edgesim would miss later messages."""
    with open_store(str(path)) as driver:
        await driver.purge("q")
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)

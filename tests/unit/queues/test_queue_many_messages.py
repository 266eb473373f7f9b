"""Operations on many messages yield to other tasks, and the file shrinks afterwards."""

import contextlib
import sqlite3
from functools import partial

import anyio
import pytest

from edgesim.clock import Clock
from edgesim.config.queues import PullConfig
from edgesim.drivers import opener
from edgesim.model import Retry
from edgesim.queues.driver import NewMessage
from edgesim.queues.producer import Queue
from edgesim.queues.pull import PullConsumer
from edgesim.queues.sqlite import statements as sqlite_statements
from edgesim.queues.sqlite.file import LOG_BYTES_MAX
from edgesim.queues.sqlite.steps import STEP_ROWS

pytestmark = pytest.mark.anyio

MANY = 6_000
TURNS_MIN = 8
LATER_MS = 4_000_000_000_000  # in 2096: nothing with this timestamp expires


@pytest.fixture(params=["memory", "sqlite"])
def url(request, tmp_path):
    """The URL of a store in memory or in a file."""
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path}/queues.db"


def opened(url):
    """Open the store of that URL."""
    return opener("queues", url)(url, Clock())


async def fill(driver, queue, count=MANY, size=10, timestamp_ms=LATER_MS):
    """Store messages that are visible now."""
    for start in range(0, count, 500):
        names = [f"{queue}-{number}" for number in range(start, min(start + 500, count))]
        await driver.send(
            queue, [NewMessage(name, b"x" * size, "bytes", timestamp_ms, 0) for name in names]
        )


async def lease_all(driver, queue, seconds=600.0):
    """Lease every message; return the lease ids."""
    now = Clock().now()
    leases = []
    while found := await driver.lease(queue, 2_000, now, now + seconds):
        leases += [message.lease_id for message in found]
    return leases


async def turns_during(call):
    """Return the number of turns of another task during the call, and the call's result."""
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        await anyio.lowlevel.checkpoint()
        before = turns
        result = await call()
        seen = turns - before
        tasks.cancel_scope.cancel()
    return seen, result


async def redrive(driver):
    return await Queue("q", driver, Clock()).redrive(Queue("to", driver, Clock()))


async def peek(driver):
    return len(await driver.peek("q", MANY))


async def expire(driver):
    return await driver.expire("q", LATER_MS + 1)


@pytest.mark.parametrize("operation", [redrive, peek, expire])
async def test_others_run_during_an_operation_on_every_message(url, operation):
    """Redrive, peek and expiry process all messages in bounded steps."""
    async with opened(url) as driver:
        await fill(driver, "q")
        turns, count = await turns_during(partial(operation, driver))
        assert count == MANY
        assert turns >= TURNS_MIN


async def test_others_run_while_many_leases_are_given_back(url):
    """Acks, releases and lease expiry for thousands of messages run in steps."""
    async with opened(url) as driver:
        await fill(driver, "q", 2 * MANY)
        leases = await lease_all(driver, "q")
        turns, acked = await turns_during(lambda: driver.ack("q", leases[:MANY]))
        assert (acked, turns >= TURNS_MIN) == (MANY, True)
        turns, released = await turns_during(lambda: driver.release("q", leases[MANY:], 0))
        assert (released, turns >= TURNS_MIN) == (MANY, True)
        await lease_all(driver, "q", seconds=60)
        then = Clock().now() + 120
        turns, leased = await turns_during(lambda: driver.lease("q", 10, then, then + 60))
        assert (len(leased), turns >= TURNS_MIN) == (10, True)


async def test_others_run_while_many_messages_are_pulled_back(url):
    """A pull client's request that retries a thousand messages runs in steps."""
    async with opened(url) as driver:
        queue = Queue("q", driver, Clock())
        consumer = PullConsumer(queue, PullConfig(max_batch_size=100))
        await fill(driver, "q", 1_000)
        pulled = [message for _ in range(10) for message in await consumer.pull()]
        retries = [Retry(message.lease_id) for message in pulled]
        turns, settled = await turns_during(lambda: consumer.settle([], retries))
        assert settled.retries == 1_000
        assert turns >= TURNS_MIN


async def test_others_run_while_a_large_file_is_opened(tmp_path):
    """Opening a large file counts its messages and ends their leases in steps."""
    url = f"sqlite:{tmp_path}/queues.db"
    async with opened(url) as driver:
        await fill(driver, "q")
        await lease_all(driver, "q")

    async def reopen():
        async with opened(url) as driver:
            depth = await driver.depth("q")
            return depth.messages, depth.next_visible_at

    turns, found = await turns_during(reopen)
    assert found == (MANY, 0)
    assert turns >= TURNS_MIN


async def test_purge_takes_what_was_there_when_it_began(url):
    """Messages that arrive in the queue during a purge are kept."""
    async with opened(url) as driver:
        await fill(driver, "other", 3, timestamp_ms=LATER_MS - 5)
        await fill(driver, "q")
        moving = [lease for lease in await lease_all(driver, "other") if lease != "1:other-2"]

        async def arrive():
            await driver.move("other", moving, "q", 0)
            await driver.send("q", [NewMessage("sent", b"", "bytes", LATER_MS - 5, 0)])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(arrive)
            purged = await driver.purge("q")
        assert purged == MANY
        kept = await driver.peek("q", 9)
        assert sorted(message.id for message in kept) == ["other-0", "other-1", "sent"]
        assert (await driver.depth("q")).messages == 3


async def test_redrive_leaves_what_comes_back_meanwhile(url):
    """A message that fails again during a redrive is not moved a second time."""
    async with opened(url) as driver:
        await fill(driver, "q")

        async def fail_again():
            now = Clock().now()
            leased = await driver.lease("to", 100, now, now + 60)
            assert leased
            await driver.move("to", [message.lease_id for message in leased], "q", now)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail_again)
            moved = await driver.redrive("q", "to", MANY, 0)
        assert moved == MANY
        assert (await driver.depth("q")).messages == 100
        assert (await driver.depth("to")).messages == MANY - 100


async def test_redrive_moves_the_oldest_up_to_its_limit(url):
    """The limit is exact if it is reached between two steps or within one."""
    async with opened(url) as driver:
        await fill(driver, "q", 2 * STEP_ROWS + 10)
        assert await driver.redrive("q", "to", STEP_ROWS + 3, 0) == STEP_ROWS + 3
        assert (await driver.peek("q", 1))[0].id == f"q-{STEP_ROWS + 3}"
        assert await driver.redrive("q", "to", STEP_ROWS, 0) == STEP_ROWS


async def test_expiry_runs_once_at_a_time(url):
    """A call that runs while another one expires messages does not wait for it."""
    async with opened(url) as driver:
        await fill(driver, "q", timestamp_ms=5)
        queue = Queue("q", driver, Clock())
        seen = []

        async def look():
            seen.append((await queue.depth()).messages)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(look)
            tasks.start_soon(look)
        assert len(seen) == 2
        assert seen[0] > 0
        assert (seen[1], queue.expired) == (0, MANY)


def sizes(path):
    """Sizes of the file and of its write-ahead log, in bytes."""
    return path.stat().st_size, path.with_name(f"{path.name}-wal").stat().st_size


async def until(condition):
    """Wait for a condition that background work fulfils."""
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110 (no event announces it)
            await anyio.sleep(0.01)


async def purge_all(driver, queue):
    assert await driver.purge(queue) == MANY


async def ack_all(driver, queue):
    while leased := await driver.lease(queue, 100, 1, 2):
        assert await driver.ack(queue, [message.lease_id for message in leased])


@pytest.mark.parametrize("empty", [purge_all, ack_all])
async def test_file_shrinks_when_its_messages_go(tmp_path, empty):
    """The file and its log shrink after its messages are purged or consumed."""
    path = tmp_path / "queues.db"
    async with opened(f"sqlite:{path}") as driver:
        await fill(driver, "q", size=3_000)
        full, _ = sizes(path)
        assert full > MANY * 3_000 - LOG_BYTES_MAX
        await empty(driver, "q")
        await until(lambda: sizes(path)[0] < full / 3)
        await until(lambda: sizes(path)[1] <= 2 * LOG_BYTES_MAX + 100_000)


async def test_log_stays_small_however_much_is_sent(tmp_path):
    """The write-ahead log is checkpointed every few megabytes."""
    path = tmp_path / "queues.db"
    async with opened(f"sqlite:{path}") as driver:
        for number in range(4):
            await fill(driver, f"q{number}", 3_000, size=3_000)
            assert sizes(path)[1] < 3 * LOG_BYTES_MAX


async def test_file_of_an_earlier_version_shrinks_too(tmp_path):
    """A file made without incremental vacuum is converted once it holds little."""
    path = tmp_path / "queues.db"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(sqlite_statements.SCHEMA)
        rows = [
            (n, f"m{n}", "q", b"x" * 3_000, "bytes", LATER_MS, 0, "") for n in range(1, MANY + 1)
        ]
        with old:
            old.executemany(sqlite_statements.SEND, rows)
    full = path.stat().st_size
    async with opened(f"sqlite:{path}") as driver:
        assert (await driver.depth("q")).messages == MANY
        await purge_all(driver, "q")
        await until(lambda: sizes(path)[0] < full / 10)
        await fill(driver, "q", size=3_000)
        await purge_all(driver, "q")
        await until(lambda: sizes(path)[0] < full / 3)

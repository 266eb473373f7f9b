"""The SQLite queue store when the system clock is set between or during runs."""

import contextlib
import sqlite3

import pytest

from edgesim import clock as clock_module
from edgesim.clock import Clock
from edgesim.queues.producer import Queue
from edgesim.queues.sqlite.driver import open_queues

pytestmark = pytest.mark.anyio

HOUR, DAY, YEAR = 3_600.0, 86_400.0, 365 * 86_400.0
STEPS = [-10 * YEAR, -2 * DAY, -HOUR, -120.0, 120.0, HOUR, 2 * DAY, 10 * YEAR]


@pytest.fixture
def set_clock(monkeypatch):
    """Set the system clock this many seconds off, for all clocks."""
    right = clock_module._time

    def set_by(seconds):
        monkeypatch.setattr(clock_module, "_time", lambda: right() + seconds)

    return set_by


@pytest.fixture
def url(tmp_path):
    return f"sqlite:{tmp_path}/queues.db"


@contextlib.asynccontextmanager
async def run(url):
    """Run the store as one process would: with its own clock and queue."""
    clock = Clock()
    async with open_queues(url, clock) as driver:
        yield Queue("q", driver, clock), clock


@pytest.mark.parametrize("step", STEPS)
async def test_clock_is_set_between_two_runs(url, set_clock, step):
    """After the clock is corrected, visibility and delays are unchanged and nothing expires."""
    set_clock(step)
    async with run(url) as (queue, _):
        await queue.send(b"1", delay_seconds=0)
        await queue.send(b"2", delay_seconds=1_000)
    set_clock(0)
    async with run(url) as (queue, clock):
        depth = await queue.depth()
        assert depth.messages == 2
        assert [message.body for message in await queue.lease(9, 60)] == [b"1"]
        waits = (await queue.depth()).next_visible_at - clock.now()
        assert 900 < waits <= 1_000
        age = clock.now() - depth.oldest_ms / 1000
        assert -1 < age < 100


@pytest.mark.parametrize("step", STEPS)
async def test_clock_goes_wrong_between_two_runs(url, set_clock, step):
    """The same if the clock is right in the first run and wrong in the second."""
    async with run(url) as (queue, _):
        await queue.send(b"1")
        await queue.send(b"2", delay_seconds=1_000)
    set_clock(step)
    async with run(url) as (queue, clock):
        assert [message.body for message in await queue.lease(9, 60)] == [b"1"]
        assert 900 < (await queue.depth()).next_visible_at - clock.now() <= 1_000
        await queue.send(b"3", delay_seconds=500)
    set_clock(0)
    async with run(url) as (queue, clock):
        assert (await queue.depth()).messages == 3
        assert [message.body for message in await queue.lease(9, 60)] == [b"1"]
        assert 400 < (await queue.depth()).next_visible_at - clock.now() <= 500


@pytest.mark.parametrize("step", [HOUR, 10 * YEAR])
async def test_clock_is_set_forward_while_running(url, set_clock, step):
    """Leases, delays and retention keep their duration when the clock is set forward."""
    async with run(url) as (queue, clock):
        await queue.send(b"1")
        await queue.send(b"2", delay_seconds=1_000)
        [lease] = await queue.lease(9, 600)
        set_clock(step)
        assert await queue.lease(9, 60) == []
        depth = await queue.depth()
        assert depth.messages == 2
        assert 900 < depth.next_visible_at - clock.now() <= 1_000
        assert await queue.release([lease.lease_id], 0) == 1
        assert [message.body for message in await queue.lease(9, 60)] == [b"1"]


async def test_clock_is_set_back_while_running(url, set_clock):
    """After the clock is set back by an hour, no message is held back, also after a restart."""
    set_clock(HOUR)
    async with run(url) as (queue, _):
        await queue.send(b"1")
        set_clock(0)
        await queue.send(b"2")
        assert len(await queue.lease(9, 60)) == 2
    async with run(url) as (queue, _):
        assert len(await queue.lease(9, 60)) == 2


async def test_message_of_an_earlier_version_from_the_future(url, set_clock, tmp_path):
    """In a file without clock marks, the newest message shows how far ahead the clock was."""
    set_clock(5 * HOUR)
    async with run(url) as (queue, _):
        await queue.send(b"1")
    with contextlib.closing(sqlite3.connect(tmp_path / "queues.db")) as connection:
        connection.execute("DROP TABLE clock")
        connection.commit()
    set_clock(0)
    async with run(url) as (queue, _):
        assert [message.body for message in await queue.lease(9, 60)] == [b"1"]


async def test_time_that_really_passed_counts(url, set_clock, monkeypatch):
    """Delays and retention count the time between two runs."""
    async with run(url) as (queue, _):
        await queue.send(b"1", delay_seconds=1_000)
    since_boot = clock_module._boot_seconds
    set_clock(1_001)
    monkeypatch.setattr(clock_module, "_boot_seconds", lambda: since_boot() + 1_001)
    async with run(url) as (queue, _):
        assert [message.body for message in await queue.lease(9, 60)] == [b"1"]
    set_clock(5 * DAY)
    monkeypatch.setattr(clock_module, "_boot_seconds", lambda: since_boot() + 5 * DAY)
    async with run(url) as (queue, _):
        assert (await queue.depth()).messages == 0
        assert queue.expired == 1

"""Times of scheduled handlers: on the minute, also when the clock is set."""

from collections.abc import Callable
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest

from edgesim.clock import Clock
from edgesim.runtime.schedule import Schedule
from tests.loops import on_both_loops  # noqa: F401 (every test here runs on both loops)

pytestmark = pytest.mark.anyio

MINUTE = 60_000
START = 1_767_225_600  # 2026-01-01T00:00:00Z


class HandClock(Clock):
    """A clock that advances only by sleeping."""

    def __init__(self) -> None:
        super().__init__()
        self.time = START + 12.5

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        await anyio.lowlevel.checkpoint()  # tasks that are due run before time advances
        self.time += seconds


class EnoughError(Exception):
    """Raised when enough runs were recorded."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    clock = HandClock()
    monkeypatch.setattr("anyio.sleep", clock.sleep)
    return clock


async def minutes(
    clock: HandClock, expression: str, count: int, after: Callable[[int], None] | None = None
) -> list[float]:
    """Minutes of the first runs since the start; ``after`` is called with the count of each run."""
    runs: list[int] = []

    async def run(scheduled_ms: int) -> str:
        runs.append(scheduled_ms)
        if after is not None:
            after(len(runs))
        if len(runs) >= count:
            raise EnoughError
        return "ok"

    with suppress(BaseExceptionGroup):
        await Schedule("w", expression, clock).run(run)
    return [(each - START * 1000) / MINUTE for each in runs[:count]]


async def test_every_minute(clock):
    """The handler runs once a minute, with the time of that minute."""
    assert await minutes(clock, "* * * * *", 5) == [1, 2, 3, 4, 5]


async def test_every_quarter(clock):
    """The handler runs only in the minutes of the expression."""
    assert await minutes(clock, "*/15 * * * *", 3) == [15, 30, 45]


async def test_far_away(clock):
    """The handler does not run during a week of waiting."""
    assert await minutes(clock, "0 0 8 * *", 1) == [7 * 24 * 60]


async def test_a_clock_set_back_a_little_repeats_no_minute(clock):
    """After the clock is set back by ten minutes, no minute is repeated."""

    def set_back(run: int) -> None:
        clock.time -= 600 if run == 3 else 0

    assert await minutes(clock, "* * * * *", 5, set_back) == [1, 2, 3, 4, 5]


async def test_what_was_slept_through_is_not_made_up_for(clock):
    """After the clock is set forward by two hours, missed runs are not made up for."""

    def jump(run: int) -> None:
        clock.time += 7_200 if run == 2 else 0

    assert await minutes(clock, "* * * * *", 5, jump) == [1, 2, 123, 124, 125]


async def test_a_slow_run_does_not_delay_the_next(clock):
    """A run that never ends does not delay the following runs."""
    begun: list[int] = []

    async def run(scheduled_ms: int) -> str:
        begun.append(scheduled_ms)
        if len(begun) >= 3:
            raise EnoughError
        await anyio.Event().wait()
        return "ok"

    with suppress(BaseExceptionGroup):
        await Schedule("w", "* * * * *", clock).run(run)
    assert [(each - START * 1000) // MINUTE for each in begun[:3]] == [1, 2, 3]


async def test_a_failure_is_loud(clock, capsys):
    """An outcome other than ok is logged as an error, and the schedule continues."""
    outcomes = ["exception", "ok"]

    async def run(scheduled_ms: int) -> str:
        if not outcomes:
            raise EnoughError
        return outcomes.pop(0)

    with suppress(BaseExceptionGroup):
        await Schedule("w", "* * * * *", clock).run(run)
    said = capsys.readouterr()
    assert (said.out + said.err).count("scheduled handler failed") == 1


async def test_what_another_node_runs_is_no_failure(clock, capsys):
    """An outcome of None (another node runs it) logs nothing, and the schedule continues."""
    outcomes = [None, "ok"]

    async def run(scheduled_ms: int) -> str | None:
        if not outcomes:
            raise EnoughError
        return outcomes.pop(0)

    with suppress(BaseExceptionGroup):
        await Schedule("w", "* * * * *", clock).run(run)
    said = capsys.readouterr()
    assert not outcomes
    assert not said.out + said.err

"""When scheduled handlers run: on the minute, by the clock alone, however it moves."""

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
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        super().__init__()
        self.time = START + 12.5

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        await anyio.lowlevel.checkpoint()  # whatever was to run now runs before time passes
        self.time += seconds


class EnoughError(Exception):
    """The test has seen what it wanted."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HandClock:
    clock = HandClock()
    monkeypatch.setattr("anyio.sleep", clock.sleep)
    return clock


async def minutes(
    clock: HandClock, expression: str, count: int, after: Callable[[int], None] | None = None
) -> list[float]:
    """The first runs, in minutes since the start; ``after`` is called after each."""
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
    """Each minute once, and the time that the handler is told is the minute's own."""
    assert await minutes(clock, "* * * * *", 5) == [1, 2, 3, 4, 5]


async def test_every_quarter(clock):
    """Only the minutes of the expression."""
    assert await minutes(clock, "*/15 * * * *", 3) == [15, 30, 45]


async def test_far_away(clock):
    """A week of waiting costs no run."""
    assert await minutes(clock, "0 0 8 * *", 1) == [7 * 24 * 60]


async def test_a_clock_set_back_a_little_repeats_no_minute(clock):
    """Ten minutes back: the schedule goes on where it was."""

    def set_back(run: int) -> None:
        clock.time -= 600 if run == 3 else 0

    assert await minutes(clock, "* * * * *", 5, set_back) == [1, 2, 3, 4, 5]


async def test_what_was_slept_through_is_not_made_up_for(clock):
    """Two hours forward: one run is next, not a hundred and twenty."""

    def jump(run: int) -> None:
        clock.time += 7_200 if run == 2 else 0

    assert await minutes(clock, "* * * * *", 5, jump) == [1, 2, 123, 124, 125]


async def test_a_slow_run_does_not_delay_the_next(clock):
    """A handler that never ends leaves the later ones their times."""
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
    """An outcome other than ok is an error in the log, and the schedule goes on."""
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
    """None for an outcome is passed over in silence, and the schedule goes on."""
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

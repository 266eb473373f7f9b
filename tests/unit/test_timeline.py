"""Stored times are shifted when the system clock is set, and only then."""

import pytest
from structlog.testing import capture_logs

from edgesim.clock import Clock
from edgesim.timeline import ClockMark, Timeline

DAY = 86_400.0
NOW = 1_800_000_000.0


class Machine(Clock):
    """A clock whose system time and time since boot are set by the test."""

    def __init__(self, unix=NOW, boot="b", since_boot=1_000.0):
        super().__init__()
        self.unix = unix
        self.since = (boot, since_boot)

    def now(self):
        return self.unix

    def boot(self):
        return self.since if self.since[0] else None


@pytest.mark.parametrize("step", [-10 * 365 * DAY, -3600, -90, 90, 3600, 10 * 365 * DAY])
def test_a_step_between_two_runs_is_measured(step):
    """On the same boot the shift is exactly the clock's step, however long the store was closed."""
    last = ClockMark(NOW, "b", 1_000.0, shift=7.0)
    with capture_logs() as logs:
        timeline = Timeline(Machine(NOW + 500 + step, "b", 1_500.0), "queues.db", last)
    assert timeline.look().shift == 7.0 + step
    assert [(each["log_level"], each["store"], each["step_seconds"]) for each in logs] == [
        ("warning", "queues.db", step)
    ]


@pytest.mark.parametrize("boot", ["b", "other", ""])
@pytest.mark.parametrize("down", [0.0, 59.0, 0.9 * DAY])
def test_time_that_passed_shifts_nothing(boot, down):
    """Time that passed while a store was closed causes no shift."""
    last = ClockMark(NOW, "b", 1_000.0, shift=-5.0)
    with capture_logs() as logs:
        machine = Machine(NOW + down, boot, 1_000.0 + down)
        assert Timeline(machine, "queues.db", last).look().shift == -5.0
    assert logs == []


def test_days_of_sleep_on_one_boot_are_no_step():
    """Ten days by the time since boot are no step of the clock."""
    last = ClockMark(NOW, "b", 1_000.0)
    machine = Machine(NOW + 10 * DAY, "b", 1_000.0 + 10 * DAY)
    assert Timeline(machine, "queues.db", last).look().shift == 0


@pytest.mark.parametrize("boot", ["other", ""])
def test_a_clock_that_went_back_over_a_reboot(boot):
    """After a reboot, or without a boot id, a clock that is behind its mark was set back."""
    timeline = Timeline(Machine(NOW - 3600, boot, 5.0), "queues.db", ClockMark(NOW, "b", 1_000.0))
    assert timeline.look().shift == -3600


def test_years_over_a_reboot_count_as_a_day():
    """Time over a reboot counts as one day at most, so a wrong year before it expires nothing."""
    last = ClockMark(0.0, "b", 1_000.0)
    assert Timeline(Machine(NOW, "other", 5.0), "queues.db", last).look().shift == NOW - DAY


def test_steps_while_running_add_up():
    """Steps forward and back during a run add up to no shift."""
    machine = Machine()
    timeline = Timeline(machine, "queues.db", None)
    machine.unix, machine.since = NOW + 7200 + 10, ("b", 1_010.0)
    assert timeline.look().shift == 7200
    machine.unix, machine.since = NOW + 20, ("b", 1_020.0)
    assert timeline.look().shift == 0


def test_small_differences_are_no_step():
    """A difference of less than a second is no step."""
    machine = Machine()
    timeline = Timeline(machine, "queues.db", None)
    machine.unix, machine.since = NOW + 10.9, ("b", 1_010.0)
    assert timeline.look().shift == 0


def test_the_boot_clock_of_this_machine():
    """The real clock has a boot id and time since boot; a clock of its own time has none."""
    first, second = Clock().boot(), Clock().boot()
    assert first is not None
    assert second is not None
    assert first[0] == second[0]
    assert first[1] <= second[1]

    class Virtual(Clock):
        """A clock with a time of its own."""

    assert Virtual().boot() is None

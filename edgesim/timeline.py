"""Stored times that stay correct when the system's clock is set.

A store keeps its times as ``Unix time - shift``.  When the clock was set, by minutes or by years,
``shift`` changes by the same amount: a remaining delay of an hour stays an hour, and an age of a
minute stays a minute.  No stored time is rewritten.

The time since the machine's boot distinguishes a step of the clock from elapsed time, while a
process runs and between two runs.  After a reboot it cannot.  Then a clock that went back was set,
and of a gap of more than a day only one day counts as elapsed: delays (at most a day) are over, and
nothing expires because a machine started with a wrong clock.
"""

from __future__ import annotations

import msgspec
import structlog

from edgesim.clock import Clock

STEP_SECONDS = 1.0
"""Smaller differences are not treated as a step."""
DOWNTIME_SECONDS_MAX = 86_400.0

log = structlog.get_logger()


class ClockMark(msgspec.Struct, frozen=True):
    """Both clocks at one moment, in seconds, with the shift; ``boot`` is "" if unknown."""

    unix: float
    boot: str = ""
    since_boot: float = 0.0
    shift: float = 0.0


class Timeline:
    """The time scale of one store; ``where`` names it in the log, ``last`` is its stored mark."""

    def __init__(self, clock: Clock, where: str, last: ClockMark | None) -> None:
        self._clock = clock
        self._where = where
        self._mark = last or self._read(0.0)
        self.look()

    def look(self) -> ClockMark:
        """Compare the clocks; returns the current mark, with the shift in force."""
        now = self._read(self._mark.shift)
        step = _step(self._mark, now)
        if abs(step) < STEP_SECONDS:
            step = 0.0
        else:
            log.warning(
                "system clock was set: stored times are adjusted",
                store=self._where,
                step_seconds=round(step, 3),
            )
        self._mark = msgspec.structs.replace(now, shift=round(now.shift + step, 3))
        return self._mark

    def _read(self, shift: float) -> ClockMark:
        boot = self._clock.boot()
        unix = self._clock.now()
        return ClockMark(unix, shift=shift) if boot is None else ClockMark(unix, *boot, shift)


class Ages:
    """Ages relative to known Unix start times, by a clock that may be set during the run.

    Only clock steps during this process are known.
    """

    def __init__(self, clock: Clock, where: str) -> None:
        self._clock = clock
        self._timeline = Timeline(clock, where, None)
        self._shift = 0.0
        self._steps: list[tuple[int, int]] = []

    def now_ms(self) -> int:
        """Unix time in whole milliseconds."""
        now_ms = self._clock.now_ms()
        shift = self._timeline.look().shift
        if shift != self._shift:
            self._steps.append((now_ms, round((shift - self._shift) * 1000)))
            self._shift = shift
        return now_ms

    def begun_by_ms(self, age_ms: int) -> int:
        """The latest Unix time in ms at which something of at least that age was begun."""
        latest = self.now_ms() - age_ms
        for when_ms, step_ms in reversed(self._steps):
            if latest >= when_ms:
                break
            latest -= step_ms
        return latest


def _step(last: ClockMark, now: ClockMark) -> float:
    """The seconds by which the clock was set between two marks."""
    passed = now.unix - last.unix
    if now.boot and now.boot == last.boot and now.since_boot >= last.since_boot:
        return passed - (now.since_boot - last.since_boot)
    if now.boot and last.boot and passed > DOWNTIME_SECONDS_MAX:
        return passed - DOWNTIME_SECONDS_MAX
    return min(passed, 0.0)

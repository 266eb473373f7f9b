"""Times on disk that stay right when the system's clock is set.

A store keeps its times as ``Unix time - shift``.  When the clock turns out to have been set, by
minutes or by years, ``shift`` changes by as much: what was to wait an hour still waits the rest of
it, and what was a minute old still is.  No stored time is rewritten.

The time since the machine's boot tells a step of the clock from time that really passed, while a
process runs and from one run to the next.  After a reboot it cannot.  Then a clock that went back
was set, and of a gap of more than a day only one day counts as passed: delays (at most a day) are
over, and nothing expires because a machine began with a wrong clock.
"""

from __future__ import annotations

import msgspec
import structlog

from edgesim.clock import Clock

STEP_SECONDS = 1.0
"""Smaller differences are not taken for a step."""
DOWNTIME_SECONDS_MAX = 86_400.0

log = structlog.get_logger()


class Mark(msgspec.Struct, frozen=True):
    """Both clocks at one moment, in seconds, and the shift then; ``boot`` is "" where unknown."""

    unix: float
    boot: str = ""
    since_boot: float = 0.0
    shift: float = 0.0


class Timeline:
    """The time scale of one store; ``where`` names it in the log, ``last`` is its stored mark."""

    def __init__(self, clock: Clock, where: str, last: Mark | None) -> None:
        self._clock = clock
        self._where = where
        self._mark = last or self._read(0.0)
        self.look()

    def look(self) -> Mark:
        """Compare the clocks; the mark of this moment, with the shift that is in force."""
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

    def _read(self, shift: float) -> Mark:
        boot = self._clock.boot()
        unix = self._clock.now()
        return Mark(unix, shift=shift) if boot is None else Mark(unix, *boot, shift)


class Ages:
    """Ages of what was begun at a known Unix time, by a clock that may be set while this runs.

    The steps that are known are those of this process.
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
        """The latest Unix time in ms at which something of that age, or older, was begun."""
        latest = self.now_ms() - age_ms
        for when_ms, step_ms in reversed(self._steps):
            if latest >= when_ms:
                break
            latest -= step_ms
        return latest


def _step(last: Mark, now: Mark) -> float:
    """By how many seconds the clock was set between two marks."""
    passed = now.unix - last.unix
    if now.boot and now.boot == last.boot and now.since_boot >= last.since_boot:
        return passed - (now.since_boot - last.since_boot)
    if now.boot and last.boot and passed > DOWNTIME_SECONDS_MAX:
        return passed - DOWNTIME_SECONDS_MAX
    return min(passed, 0.0)

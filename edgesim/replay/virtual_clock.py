"""The Clocks of a replay: now is the virtual loop's time, chance the seed's."""

from __future__ import annotations

from edgesim.clock import Clock
from edgesim.replay.virtual_loop import VirtualLoop


class VirtualClock(Clock):
    """Follows one VirtualLoop."""

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        super().__init__(seed)
        self._loop = loop

    def now(self) -> float:
        return self._loop.time()

    def steady(self) -> float:
        return self._loop.time()

    def elapsed(self) -> float:
        return self._loop.time()


class PlatformClock(Clock):
    """The clock that a platform sees on a machine whose wall clock is set now and then.

    As with Clock, a platform that runs follows it forward at once and never back; a step back is
    seen after ``restart``.
    """

    def __init__(self, steady: Clock) -> None:
        super().__init__()
        self.random = steady.random
        self.ahead = 0.0
        """Seconds by which the platform's time is ahead of the steady clock's; may be negative."""
        self._steady = steady
        self.boots = 0
        """Power cuts so far."""
        self._wall = 0.0

    def now(self) -> float:
        return self._steady.now() + self.ahead

    def steady(self) -> float:
        return self._steady.steady()

    def elapsed(self) -> float:
        return self._steady.elapsed()

    def boot(self) -> tuple[str, float]:
        return f"boot {self.boots}", self._steady.elapsed()

    def jump(self, seconds: float) -> None:
        """Set the machine's wall clock."""
        self._wall += seconds
        self.ahead = max(self.ahead, self._wall)

    def restart(self) -> None:
        """The platform starts, and reads the wall clock anew."""
        self.ahead = self._wall

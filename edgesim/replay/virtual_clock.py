"""Clocks of a replay: their time is the virtual loop's, their random numbers are seeded."""

from __future__ import annotations

from edgesim.clock import Clock
from edgesim.replay.virtual_loop import VirtualLoop


class VirtualClock(Clock):
    """Clock that returns the time of a VirtualLoop."""

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
    """The platform's clock on a machine whose wall clock may be set.

    Like Clock, it follows a forward step immediately, but a backward step only after ``restart``.
    """

    def __init__(self, steady: Clock) -> None:
        super().__init__()
        self.random = steady.random
        self.ahead = 0.0
        """Seconds by which the platform's time is ahead of the steady clock; may be negative."""
        self._steady = steady
        self.boots = 0
        """Number of power cuts so far."""
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
        """Set the machine's wall clock forward by ``seconds``, which may be negative."""
        self._wall += seconds
        self.ahead = max(self.ahead, self._wall)

    def restart(self) -> None:
        """Read the wall clock again, as the platform does at its start."""
        self.ahead = self._wall

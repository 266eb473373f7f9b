"""The Clock of a replay: now is the virtual loop's time, chance the seed's."""

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

"""Budget of the platform for all isolates together: its memory, and its time to read messages.

Messages that have arrived in part, unanswered calls, unread replies and bodies that nobody has read
yet are in the platform's memory for as long as an isolate likes.  Beyond the budget an isolate
waits: the platform reads no more of what it sends.  Each Worker has a share of its own besides, so
that one that fills the budget does not hold up the others.  After ``ROOM_SECONDS`` of waiting, the
largest holder of the Worker that wants most is evicted, as one whose memory is full.

Large messages that take long to read, as those of many small values do, have at most half of the
platform's time: the other half is for everybody else.

Tried and dropped: to read the messages of all isolates bit by bit as there is room.  Then large
messages of several isolates wait for each other, and none of them becomes complete.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any
from weakref import WeakKeyDictionary, ref

import structlog

from edgesim.errors import PlatformError
from edgesim.foreign import stops_the_world
from edgesim.isolates.protocol.limits import MEMORY_EXCEEDED

COMMON_BYTES_MAX = 256 << 20
"""Bytes that all Workers together may occupy."""
OWN_BYTES_MAX = 128 << 20
"""Bytes besides, in equal shares, for Workers that find the common ones occupied."""
ROOM_SECONDS = 10.0
"""Seconds of waiting after which a holder is evicted."""
EARLY_SECONDS = 0.002
"""A timer may fire this long before its time: uvloop counts whole milliseconds."""

log = structlog.get_logger()


class MemoryHolder:
    """One isolate, invocation or body; it occupies ``size`` bytes on behalf of a Worker."""

    __slots__ = ("__weakref__", "_budget", "_on_evict", "closed", "size", "worker")

    def __init__(self, budget: Budget, worker: str, on_evict: Callable[[], None]) -> None:
        self.size = 0
        self.worker = worker
        self.closed = False
        self._budget = budget
        self._on_evict = on_evict

    def add(self, size: int) -> None:
        """Occupy more bytes, also where there is no room."""
        self._budget.change(self, size)

    def drop(self, size: int) -> None:
        """Occupy fewer bytes."""
        self._budget.change(self, -size)

    def add_if_room(self, size: int) -> bool:
        """Occupy more bytes if there is room, and nobody waits for it."""
        return self._budget.add_if_room(self, size)

    def wait(self, size: int, act: Callable[[bool], None]) -> None:
        """Wait for room for ``size`` more bytes.

        Then they are occupied and ``act`` is called with True; with False if it was evicted.
        """
        self._budget.wait(self, size, act)

    async def room(self, size: int = 0) -> None:
        """Occupy ``size`` more bytes once there is room; PlatformError if it was evicted."""
        if self.add_if_room(size):
            return
        granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def act(has_room: bool) -> None:
            if not granted.done():
                granted.set_result(has_room)
            elif has_room:  # cancelled meanwhile
                self.drop(size)

        self.wait(size, act)
        if not await granted:
            raise PlatformError(MEMORY_EXCEEDED)

    def move_to(self, worker: str) -> None:
        """Occupy the bytes on behalf of another Worker from now on."""
        size = self.size
        self.drop(size)
        self.worker = worker
        self.add(size)

    def evict(self) -> None:
        """Release all bytes and tell their owner."""
        self.close()
        self._on_evict()

    def close(self) -> None:
        """Release all bytes; later ones are not counted."""
        if not self.closed:
            self._budget.forget(self)
            self.drop(self.size)
            self.closed = True


class _Waiting:
    """A wait for room."""

    def __init__(
        self, holder: MemoryHolder, size: int, act: Callable[[bool], None], deadline: float
    ) -> None:
        self.holder = holder
        self.size = size
        self.act = act
        self.deadline = deadline


class Budget:
    """The bytes that the isolates of one platform occupy, and the holders that wait for room.

    ``bytes`` is their sum.
    """

    def __init__(
        self,
        common_bytes: float = COMMON_BYTES_MAX,
        own_bytes: float = OWN_BYTES_MAX,
        room_seconds: float = ROOM_SECONDS,
    ) -> None:
        self.bytes = 0
        self._common = common_bytes
        self._own = own_bytes
        self._room_seconds = room_seconds
        self._workers: Counter[str] = Counter()
        """Bytes of each Worker that occupies some."""
        self._holders: dict[MemoryHolder, None] = {}
        self._waiting: list[_Waiting] = []
        self._loop = ref(asyncio.get_running_loop())
        self._timer: asyncio.TimerHandle | None = None
        self._granting = False
        """True if ``_grant`` is scheduled."""
        self.busy_until = 0.0
        """Time of the loop until which no large message is read."""

    def rest_after(self, seconds: float) -> None:
        """Let peers with large messages wait as long as it took to read the last one's."""
        now = asyncio.get_running_loop().time() + seconds  # of this turn, where the loop keeps it
        self.busy_until = max(now, self.busy_until) + seconds

    def holder(self, worker: str, on_evict: Callable[[], None]) -> MemoryHolder:
        """A new holder; ``on_evict`` must let go of what it holds."""
        return MemoryHolder(self, worker, on_evict)

    def change(self, holder: MemoryHolder, size: int) -> None:
        """Count bytes of a holder; negative if they are released."""
        if holder.closed or not size:
            return
        holder.size += size
        self.bytes += size
        self._workers[holder.worker] += size
        if holder.size:
            self._holders[holder] = None
        else:
            self._holders.pop(holder, None)
        if not self._workers[holder.worker]:
            del self._workers[holder.worker]
        if size < 0 and self._waiting:
            self._grant_soon()

    def add_if_room(self, holder: MemoryHolder, size: int) -> bool:
        """Count bytes if there is room; they overtake no wait for the common bytes."""
        common = not self._waiting and self.bytes + size <= self._common
        if not common and not self._fits_own(holder.worker, size):
            return False
        self.change(holder, size)
        return True

    def wait(self, holder: MemoryHolder, size: int, act: Callable[[bool], None]) -> None:
        """Add a wait, the last in order."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._room_seconds
        self._waiting.append(_Waiting(holder, size, act, deadline))
        if holder.closed:
            self.forget(holder)
        elif self._timer is None:
            self._timer = loop.call_at(deadline, self._look)

    def forget(self, holder: MemoryHolder) -> None:
        """End the waits of a holder without room."""
        ended = [each for each in self._waiting if each.holder is holder]
        if ended:
            self._waiting = [each for each in self._waiting if each.holder is not holder]
            self._grant_soon()
        for each in ended:
            self._soon(each.act, False)

    def _fits_own(self, worker: str, size: int) -> bool:
        others = len(self._workers) - (worker in self._workers)
        return self._workers[worker] + size <= self._own / (others + 1)

    def _grant_soon(self) -> None:
        """Look once in this turn of the event loop, however much is released in it."""
        if not self._granting:
            self._granting = True
            self._soon(self._grant)

    def _grant(self) -> None:
        """Grant the waits for which there is room, in order."""
        self._granting = False
        left: list[_Waiting] = []
        waiting, self._waiting = self._waiting, left
        for each in waiting:
            common = not left and self.bytes + each.size <= self._common
            if common or self._fits_own(each.holder.worker, each.size):
                self.change(each.holder, each.size)
                self._soon(each.act, True)
            else:
                left.append(each)

    def _look(self) -> None:
        """Evict in favour of the first that waits, if it has waited for too long.

        The others wait anew: what was evicted for it may have been what they waited for.
        """
        self._timer = None
        loop = asyncio.get_running_loop()
        first = self._waiting[0] if self._waiting else None
        if first is not None and first.deadline <= loop.time() + EARLY_SECONDS:
            while first in self._waiting:
                victim, size = self._victim()
                log.warning("memory of isolates is full", evicted=victim.worker, bytes=size)
                victim.evict()
                self._grant()
            for each in self._waiting:
                each.deadline = loop.time() + self._room_seconds
        if self._waiting:
            self._timer = loop.call_at(self._waiting[0].deadline, self._look)

    def _soon(self, act: Callable[..., None], *args: Any) -> None:
        loop = self._loop()
        if loop is not None and not loop.is_closed():  # a body may be the last to be released
            loop.call_soon(act, *args)

    def _victim(self) -> tuple[MemoryHolder, int]:
        """The largest holder of the Worker that wants most, and its size; waits included."""
        wanted = Counter({each: each.size for each in self._holders})
        for each in self._waiting:
            wanted[each.holder] += each.size
        by_worker: Counter[str] = Counter()
        for holder, size in wanted.items():
            by_worker[holder.worker] += size
        worker = max(by_worker, key=lambda name: by_worker[name])
        victim = max(
            (each for each in wanted if each.worker == worker), key=lambda each: wanted[each]
        )
        return victim, wanted[victim]


_budgets: WeakKeyDictionary[asyncio.AbstractEventLoop, Budget] = WeakKeyDictionary()


def budget_here() -> Budget:
    """The budget of this event loop; without a limit in virtual time, where nothing may wait."""
    loop = asyncio.get_running_loop()
    found = _budgets.get(loop)
    if found is None:
        found = Budget(inf) if stops_the_world() else Budget()
        _budgets[loop] = found
    return found

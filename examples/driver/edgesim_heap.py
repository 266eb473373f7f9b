"""``heap:``: messages in a heap of this process, ordered by the time at which they become visible.

A driver from a package of its own: pyproject.toml registers this module for the scheme.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import anyio

from edgesim.clock import Clock
from edgesim.errors import ConfigError, RunError
from edgesim.model import Message
from edgesim.queues.driver import Depth, NewMessage, QueueDriver

DETERMINISTIC = True
EMBEDDED = True
SHARED = False
DURABLE = False


@asynccontextmanager
async def open_queues(url: str, clock: Clock) -> AsyncIterator[QueueDriver]:
    """An empty store."""
    if url != "heap:":
        raise ConfigError("backends", "queues", f"{url!r}: heap: takes no path")
    yield HeapQueues()


@dataclass
class Stored:
    """A message in the store; ``deliveries`` counts leases, ``attempts`` those that count."""

    message: NewMessage
    seq: int
    visible_at: float
    attempts: int = 0
    deliveries: int = 0
    leased_until: float | None = None

    @property
    def lease_id(self) -> str:
        """Identifies the last lease."""
        return f"{self.deliveries}:{self.message.id}"

    def seen(self, *, leased: bool) -> Message:
        """The message as a consumer receives it."""
        new = self.message
        lease_id = self.lease_id if leased else ""
        return Message(
            new.id, new.body, new.content_type, new.timestamp_ms, self.attempts, lease_id, new.trace
        )


@dataclass
class Heap:
    """One queue.

    ``waiting`` holds (visible at, seq, id); entries that no longer describe their message are
    skipped when they come up.
    """

    stored: dict[str, Stored] = field(default_factory=dict)
    waiting: list[tuple[float, int, str]] = field(default_factory=list)

    def add(self, new: Stored) -> None:
        """Add a message that is not leased, or make one visible again."""
        new.leased_until = None
        self.stored[new.message.id] = new
        heapq.heappush(self.waiting, (new.visible_at, new.seq, new.message.id))

    def end_leases(self, now: float) -> None:
        """Make the messages of expired leases visible."""
        for one in self.leased():
            if (one.leased_until or 0.0) <= now:
                self.add(one)

    def take(self, now: float) -> Stored | None:
        """The visible message that has been so for longest, out of the heap."""
        while self.waiting and self.waiting[0][0] <= now:
            visible_at, seq, name = heapq.heappop(self.waiting)
            one = self.stored.get(name)
            if one and (one.visible_at, one.seq) == (visible_at, seq) and one.leased_until is None:
                return one
        return None

    def leased(self) -> list[Stored]:
        """The leased messages."""
        return [one for one in self.stored.values() if one.leased_until is not None]

    def held(self, lease_ids: Iterable[str]) -> list[Stored]:
        """The messages of leases that may still be settled."""
        found = {lease: self.stored.get(lease.partition(":")[2]) for lease in lease_ids}
        return [one for lease, one in found.items() if one and one.lease_id == lease]

    def oldest(self, limit: int) -> list[Stored]:
        """The messages with the lowest timestamps."""
        return heapq.nsmallest(
            limit, self.stored.values(), lambda one: (one.message.timestamp_ms, one.seq)
        )

    def remove(self, gone: Iterable[Stored]) -> int:
        """Remove messages; returns their number."""
        return sum(self.stored.pop(one.message.id, None) is not None for one in gone)


class HeapQueues:
    """All queues; see QueueDriver for the contract."""

    def __init__(self) -> None:
        self._heaps: defaultdict[str, Heap] = defaultdict(Heap)
        self._seq = count()

    async def send(self, queue: str, messages: Sequence[NewMessage]) -> None:
        """See QueueDriver."""
        heap = self._heaps[queue]
        if any(each.id in heap.stored for each in messages):
            raise RunError(f"heap: queue {queue} has a message with that id")
        for each in messages:
            heap.add(Stored(each, next(self._seq), each.visible_at))

    async def lease(
        self, queue: str, limit: int, now: float, until: float, leased_max: int | None = None
    ) -> Sequence[Message]:
        """See QueueDriver."""
        heap = self._heaps[queue]
        heap.end_leases(now)
        room = limit if leased_max is None else min(limit, leased_max - len(heap.leased()))
        taken: list[Message] = []
        while len(taken) < room and (one := heap.take(now)):
            one.leased_until = until
            one.attempts += 1
            one.deliveries += 1
            taken.append(one.seen(leased=True))
        return taken

    async def ack(self, queue: str, lease_ids: Sequence[str]) -> int:
        """See QueueDriver."""
        heap = self._heaps[queue]
        return heap.remove(heap.held(lease_ids))

    async def release(
        self, queue: str, lease_ids: Sequence[str], visible_at: float, counts: bool = True
    ) -> int:
        """See QueueDriver."""
        heap = self._heaps[queue]
        held = heap.held(lease_ids)
        for one in held:
            one.visible_at = visible_at
            one.attempts -= not counts
            heap.add(one)
        return len(held)

    async def move(self, queue: str, lease_ids: Sequence[str], to: str, now: float) -> int:
        """See QueueDriver."""
        return self._give(queue, self._heaps[queue].held(lease_ids), to, now)

    async def redrive(self, queue: str, to: str, limit: int, now: float) -> int:
        """See QueueDriver."""
        return self._give(queue, self._heaps[queue].oldest(limit), to, now)

    def _give(self, queue: str, given: Sequence[Stored], to: str, now: float) -> int:
        moved = self._heaps[queue].remove(given)
        for one in given:
            one.attempts, one.visible_at = 0, now
            self._heaps[to].add(one)
        return moved

    async def peek(self, queue: str, limit: int) -> Sequence[Message]:
        """See QueueDriver."""
        return [one.seen(leased=False) for one in self._heaps[queue].oldest(limit)]

    async def depth(self, queue: str) -> Depth:
        """See QueueDriver."""
        stored = self._heaps[queue].stored.values()
        return Depth(
            len(stored),
            sum(len(one.message.body) for one in stored),
            min((one.message.timestamp_ms for one in stored), default=None),
            min((one.visible_at for one in stored if one.leased_until is None), default=None),
        )

    async def purge(self, queue: str) -> int:
        """See QueueDriver."""
        heap = self._heaps.pop(queue, None)
        return len(heap.stored) if heap else 0

    async def drop(self, queue: str) -> None:
        """See QueueDriver."""
        await self.purge(queue)

    async def expire(self, queue: str, before_ms: int) -> int:
        """See QueueDriver."""
        heap = self._heaps[queue]
        return heap.remove(
            one
            for one in list(heap.stored.values())
            if one.message.timestamp_ms < before_ms and one.leased_until is None
        )

    async def names(self) -> Sequence[str]:
        """See QueueDriver."""
        return sorted(name for name, heap in self._heaps.items() if heap.stored)

    async def claim(self, name: str) -> bool:
        """See QueueDriver."""
        return True

    async def changed_elsewhere(self) -> str:
        """See QueueDriver."""
        await anyio.sleep_forever()
        raise AssertionError


_: type[QueueDriver] = HeapQueues

"""The most recent traces of all Workers, bounded by number and bytes, and streams of new ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from edgesim.model import TraceItem
from edgesim.runtime.tail import bytes_of
from edgesim.taps import Taps

TRACES_MAX = 10_000
BYTES_MAX = 32 << 20
"""Approximate memory of the traces that are kept."""
UNREAD_MAX = 1000
"""New traces that one reader may leave unread; further ones are dropped for it, and counted."""
UNREAD_BYTES_MAX = 8 << 20
"""Approximate memory of the traces that one reader may leave unread."""
READERS_MAX = 32
"""Streams of new traces at a time: each holds a connection as long as its reader likes."""


class Subscription:
    """New traces for one reader; ``dropped`` counts traces lost because it read too slowly."""

    def __init__(self) -> None:
        self._send, self._traces = anyio.create_memory_object_stream[tuple[int, TraceItem]](
            UNREAD_MAX
        )
        self._unread_bytes = 0
        self.dropped = 0

    def offer(self, size: int, item: TraceItem) -> None:
        """Pass on a trace of that size, unless too many or too large ones are unread."""
        try:
            if self._unread_bytes and self._unread_bytes + size > UNREAD_BYTES_MAX:
                raise anyio.WouldBlock
            self._send.send_nowait((size, item))
            self._unread_bytes += size
        except anyio.WouldBlock:
            self.dropped += 1

    async def receive(self) -> TraceItem:
        """Return the next trace; anyio.EndOfStream after the last one."""
        size, item = await self._traces.receive()
        self._unread_bytes -= size
        return item

    def close(self) -> None:
        """End the stream; unread traces are discarded."""
        self.end()
        self._traces.close()

    def end(self) -> None:
        """End the stream after the traces that it holds."""
        self._send.close()


class RecentTraces:
    """A TraceSink that keeps the latest traces; the oldest ones are dropped first."""

    def __init__(self, taps: Taps | None = None) -> None:
        """``taps`` has the places ``workers.NAME``, whose records are console lines."""
        self._taps = taps
        self._kept: deque[tuple[int, TraceItem]] = deque()
        self._bytes = 0
        self.count = 0
        """Number of traces since the start, dropped ones included."""
        self._subscriptions: set[Subscription] = set()
        self._ended = False

    def add(self, item: TraceItem) -> None:
        """Keep a finished trace and pass it to the readers."""
        size = bytes_of(item)
        self._kept.append((size, item))
        self._bytes += size
        self.count += 1
        while self._bytes > BYTES_MAX or len(self._kept) > TRACES_MAX:
            self._bytes -= self._kept.popleft()[0]
        for subscription in self._subscriptions:
            subscription.offer(size, item)
        if self._taps is not None:
            count = len(item.logs) + len(item.exceptions)
            self._taps.at(f"workers.{item.script_name}").offer(count, console_lines(item))

    def oldest_first(self) -> list[TraceItem]:
        """The traces that are kept."""
        return [item for _, item in self._kept]

    @property
    def has_room(self) -> bool:
        """False while there are READERS_MAX streams."""
        return len(self._subscriptions) < READERS_MAX

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """A stream of the traces that finish from now on."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        if self._ended:
            subscription.end()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            subscription.close()

    def end(self) -> None:
        """End all streams: the platform is shutting down."""
        self._ended = True
        for subscription in self._subscriptions:
            subscription.end()


def console_lines(item: TraceItem) -> Iterator[dict[str, Any]]:
    """The console lines of an invocation, then its exceptions."""
    for entry in item.logs:
        yield {"level": entry.level, "message": entry.message}
    for exception in item.exceptions:
        yield {"level": "exception", "message": [f"{exception.name}: {exception.message}"]}

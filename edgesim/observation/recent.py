"""The most recent traces of all Workers, bounded by number and bytes, and streams of new ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from edgesim.errors import UsageError
from edgesim.model import HttpRequest, TraceItem
from edgesim.runtime.finished import FinishedInvocation
from edgesim.runtime.tail import bytes_of
from edgesim.taps import Taps

TRACES_MAX = 10_000
BYTES_MAX = 32 << 20
"""Approximate memory of the traces that are kept."""
EVENTS_BYTES_MAX = 32 << 20
"""Approximate memory of the events that are kept to be sent again."""
EVENT_BYTES_MAX = 1 << 20
"""Larger events are not kept."""
EVENT_BYTES = 2000
"""Approximate memory of an event without its body."""
UNREAD_MAX = 1000
"""New traces that one reader may leave unread; further ones are dropped for it, and counted."""
UNREAD_BYTES_MAX = 8 << 20
"""Approximate memory of the traces that one reader may leave unread."""
READERS_MAX = 32
"""Streams of new traces at a time: each holds a connection as long as its reader likes."""

NUMBER_DIGITS_MAX = 16
REPEATABLE = {"fetch", "queue", "scheduled"}
"""Handlers whose events can be sent again."""


class Subscription:
    """New traces for one reader; ``dropped`` counts traces lost because it read too slowly."""

    def __init__(self) -> None:
        self._send, self._traces = anyio.create_memory_object_stream[KeptInvocation](UNREAD_MAX)
        self._unread_bytes = 0
        self.dropped = 0

    def offer(self, kept: KeptInvocation) -> None:
        """Pass on an invocation, unless too many or too large ones are unread."""
        try:
            if self._unread_bytes and self._unread_bytes + kept.size > UNREAD_BYTES_MAX:
                raise anyio.WouldBlock
            self._send.send_nowait(kept)
            self._unread_bytes += kept.size
        except anyio.WouldBlock:
            self.dropped += 1

    async def receive(self) -> KeptInvocation:
        """Return the next invocation; anyio.EndOfStream after the last one."""
        kept = await self._traces.receive()
        self._unread_bytes -= kept.size
        return kept

    def close(self) -> None:
        """End the stream; unread traces are discarded."""
        self.end()
        self._traces.close()

    def end(self) -> None:
        """End the stream after the traces that it holds."""
        self._send.close()


class KeptInvocation:
    """A finished invocation that is kept; ``again``: with its event, to send it again."""

    __slots__ = ("again", "item", "number", "size")

    def __init__(
        self, number: int, size: int, item: TraceItem, again: FinishedInvocation | None
    ) -> None:
        self.number = number
        self.size = size
        self.item = item
        self.again = again


class RecentTraces:
    """An InvocationSink that keeps the latest traces; the oldest ones are dropped first."""

    def __init__(
        self, taps: Taps | None = None, run: str = "run", *, with_events: bool = False
    ) -> None:
        """``taps`` has the places ``workers.NAME``, whose records are console lines.

        ``run`` begins the ids of invocations, so that an id of an earlier run means no other one.
        ``with_events``: keep the events too, in a budget of their own.
        """
        self._taps = taps
        self._run = run
        self._with_events = with_events
        self._kept: deque[KeptInvocation] = deque()
        self._bytes = 0
        self._events: deque[tuple[int, KeptInvocation]] = deque()
        self._events_bytes = 0
        self.count = 0
        """Number of traces since the start, dropped ones included."""
        self._subscriptions: set[Subscription] = set()
        self._ended = False

    def finished(self, invocation: FinishedInvocation) -> None:
        """Keep a finished invocation and pass its trace to the readers."""
        item = invocation.item
        self.count += 1
        kept = KeptInvocation(self.count, bytes_of(item), item, None)
        self._kept.append(kept)
        self._bytes += kept.size
        while self._bytes > BYTES_MAX or len(self._kept) > TRACES_MAX:
            self._bytes -= self._kept.popleft().size
        if self._with_events and (size := event_bytes(invocation)) is not None:
            self._keep_event(kept, size, invocation)
        for subscription in self._subscriptions:
            subscription.offer(kept)
        if self._taps is not None:
            count = len(item.logs) + len(item.exceptions)
            self._taps.at(f"workers.{item.script_name}").offer(count, console_lines(item))

    def _keep_event(self, kept: KeptInvocation, size: int, invocation: FinishedInvocation) -> None:
        kept.again = invocation
        self._events.append((size, kept))
        self._events_bytes += size
        while self._events_bytes > EVENTS_BYTES_MAX or len(self._events) > TRACES_MAX:
            size, oldest = self._events.popleft()
            self._events_bytes -= size
            oldest.again = None

    def oldest_first(self) -> list[TraceItem]:
        """The traces that are kept."""
        return [kept.item for kept in self._kept]

    def newest_first(self) -> list[KeptInvocation]:
        """The invocations that are kept."""
        return [*reversed(self._kept)]

    def id_of(self, kept: KeptInvocation) -> str:
        """The id of an invocation, which no other one has."""
        return f"{self._run}-{kept.number}"

    def id_of_trace(self, item: TraceItem) -> str:
        """The id of the invocation with that trace; empty if it is not kept."""
        return next((self.id_of(kept) for kept in self.newest_first() if kept.item is item), "")

    def problem_of(self, kept: KeptInvocation) -> str:
        """The reason why an event cannot be sent again; empty if it can."""
        if kept.again is not None:
            return ""
        if not self._with_events:
            return "events are kept in `edgesim dev` only"
        event = kept.item.event or {}
        if "consumedEvents" in event or "rpcMethod" in event:
            return "traces and RPC calls are not sent again; send what caused them"
        return "its event is not kept: too large, a stream, or pushed out by newer ones"

    def known(self, identifier: str) -> KeptInvocation:
        """The invocation of that id; UsageError if it is not kept."""
        number = identifier.removeprefix(f"{self._run}-")
        if self._kept and number.isdecimal() and len(number) < NUMBER_DIGITS_MAX:
            index = int(number) - self._kept[0].number
            if 0 <= index < len(self._kept) and self.id_of(self._kept[index]) == identifier:
                return self._kept[index]
        raise UsageError(
            f"no invocation {identifier!r} is kept; the last {len(self._kept)} of {self.count} are"
        )

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


def event_bytes(invocation: FinishedInvocation) -> int | None:
    """Approximate memory of its event; None if it cannot be sent again.

    That are traces, RPC calls, which belong to their caller, and bodies that are streams or large.
    """
    event = invocation.event
    size = EVENT_BYTES + invocation.size + len(invocation.reply or b"")
    if isinstance(event, HttpRequest):
        if not isinstance(event.body, bytes):
            return None
        size += len(event.body)
    elif invocation.handler not in REPEATABLE:
        return None
    return size if size <= EVENT_BYTES_MAX else None


def console_lines(item: TraceItem) -> Iterator[dict[str, Any]]:
    """The console lines of an invocation, then its exceptions."""
    for entry in item.logs:
        yield {"level": entry.level, "message": entry.message}
    for exception in item.exceptions:
        yield {"level": "exception", "message": [f"{exception.name}: {exception.message}"]}

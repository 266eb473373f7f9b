"""One queue in JetStream: a work-queue stream, its consumer, and this node's state of both.

driver.py explains their use, messages.py the format of a message.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import msgspec

from edgesim.clock import Clock
from edgesim.errors import RunError, first_error
from edgesim.jetstream.server import (
    OVERHEAD_BYTES,
    ApiReply,
    Delivery,
    JetStream,
    KnownError,
    Publication,
    StreamConfig,
    StreamMessage,
    delivery_of,
)
from edgesim.jetstream.url import Place
from edgesim.model import Message
from edgesim.queues.driver import Depth, NewMessage
from edgesim.queues.nats.delayed import Delayed
from edgesim.queues.nats.messages import QueueSubjects, kept_of, message_of

CONSUMER = "edgesim"
LEASED_MAX = 65_536
DUPLICATE_SECONDS = 120
PAGE = 100
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


class Lease(msgspec.Struct, frozen=True):
    """A message that this node has leased."""

    message: StreamMessage
    attempts: int
    until: float

    @property
    def reply(self) -> str:
        return self.message.reply


class WorkQueue:
    """One queue.  Created by ``open_work_queue``.

    ``leases`` are those of this node, by sequence in the stream; ``returned`` are messages that it
    released, with their attempts so far and the time.  ``doubt`` is the time since which dead nodes
    may have left leases behind.
    """

    def __init__(self, name: str, server: JetStream, place: Place, clock: Clock) -> None:
        self.name = name
        self.stream = stream_of(place, name)
        self.leases: dict[int, Lease] = {}
        self.returned: dict[int, tuple[int, float]] = {}
        self.doubt: float | None = None
        self.leased_max = 0
        self._server = server
        self._place = place
        self._layout = QueueSubjects(place.name, name)
        self._delayed = Delayed(server, self.stream, self._layout, clock)
        self._next_new: tuple[int, float] | None = None  # last delivered sequence, visible since
        self._oldest: tuple[int, int] | None = None  # first sequence, its timestamp

    def forget(self) -> None:
        """Drop cached state after changes, by any node, that are not tracked here."""
        self._delayed.forget()
        self._next_new = None

    # --- leasing and settling ---

    async def send(self, messages: Sequence[NewMessage], now: float) -> None:
        """Store all of the messages or none."""
        outgoing = [
            self._layout.new(m, index if m.visible_at > now else None)
            for index, m in enumerate(sorted(messages, key=lambda each: each.visible_at))
        ]
        await self._server.publish(outgoing)
        self._delayed.note(outgoing)

    async def lease(
        self, limit: int, now: float, until: float, leased_max: int
    ) -> tuple[list[Message], bool]:
        """Lease messages; also True if delayed ones became ready, which other nodes must know."""
        await self.allow(leased_max)
        await self._end_old_leases(now)
        promoted = await self._promote(now)
        room = await self._room(limit)
        stored = await self._server.fetch(self.stream, CONSUMER, room) if room else []
        self._next_new = None
        if len(stored) < limit:
            self.returned.clear()  # messages not delivered now are no longer available
            self.doubt = None
        return [self._leased(each, until) for each in stored], promoted

    def _leased(self, stored: StreamMessage, until: float) -> Message:
        kept = kept_of(stored)
        attempts = kept.attempts + _delivery(stored.reply).count
        self.returned.pop(stored.seq, None)
        self.leases[stored.seq] = Lease(stored, attempts, until)
        return message_of(stored, kept, attempts, stored.reply)

    def held(self, lease_ids: Iterable[str]) -> list[str]:
        """The lease ids of this queue that are not known to be superseded."""
        held = []
        for lease_id in lease_ids:
            delivery = delivery_of(lease_id)
            if delivery is None or delivery.stream != self.stream:
                continue
            ours = self.leases.get(delivery.seq)
            if ours is None or ours.reply == lease_id:
                held.append(lease_id)
        return held

    async def ack(self, leases: Sequence[str]) -> None:
        """Remove the messages of held leases."""
        await _each(self._settle, [(reply, b"+ACK") for reply in leases])

    async def give_back(self, leases: Sequence[str], now: float) -> None:
        """Make the messages of held leases visible at once."""
        await _each(self._return, [(reply, now) for reply in leases])

    async def delay(
        self, leases: Sequence[str], visible_at: float, *, uncounted: bool = False
    ) -> None:
        """Make the messages of held leases visible later; ``uncounted``: minus one attempt."""
        later = [(reply, visible_at, uncounted, index) for index, reply in enumerate(leases)]
        await _each(self._delay, later)

    async def _settle(self, reply: str, kind: bytes) -> None:
        await self._server.confirm(reply, kind)
        seq = _delivery(reply).seq
        self.leases.pop(seq, None)
        self.returned.pop(seq, None)

    async def _return(self, reply: str, now: float) -> None:
        delivery = _delivery(reply)
        lease = self.leases.get(delivery.seq)
        await self._settle(reply, b"-NAK")
        self.returned[delivery.seq] = (lease.attempts if lease else delivery.count, now)

    async def _delay(self, reply: str, visible_at: float, uncounted: bool, index: int) -> None:
        """Publish the message's successor with its attempts and new time, then ack the message."""
        for found in await self.read_leased([reply]):
            kept = kept_of(found)
            attempts = kept.attempts + _delivery(reply).count - uncounted
            later = msgspec.structs.replace(kept, visible_at=visible_at, attempts=attempts)
            successor = self._layout.successor(found, later, delayed=index)
            await self._publish([successor])
            self._delayed.note([successor])
        await self._settle(reply, b"+ACK")

    async def _room(self, limit: int) -> int:
        """Number of messages to fetch: the server does not reply beyond its limit."""
        if self.leased_max == LEASED_MAX:
            return limit
        free = self.leased_max - await self.pending()
        # Released messages are pending too, but can be leased nevertheless.
        again = len(self.returned) + (self.doubt is not None)
        return min(limit, max(free, 0) + again)

    async def _end_old_leases(self, now: float) -> None:
        over = [lease.reply for lease in self.leases.values() if lease.until <= now]
        await _each(self._return, [(reply, now) for reply in over])

    async def read_leased(self, replies: Sequence[str]) -> list[StreamMessage]:
        """The messages of the leases that still exist."""

        async def read(seq: int) -> StreamMessage | None:
            lease = self.leases.get(seq)
            return lease.message if lease else await self._server.at(self.stream, seq)

        found = await _each(read, [(_delivery(reply).seq,) for reply in replies])
        return [each for each in found if each is not None]

    async def pending(self) -> int:
        """Number of messages over all nodes that are leased, or released and not leased again."""
        return (await self._consumer()).num_ack_pending

    async def allow(self, leased_max: int) -> None:
        """Set the consumer's limit of leased messages at a time, over all nodes."""
        if self.leased_max == leased_max:
            return
        config = {
            "durable_name": CONSUMER,
            "ack_policy": "explicit",
            "ack_wait": int(self._place.ack_wait * 1_000_000_000),
            "max_ack_pending": leased_max,
            "filter_subject": self._layout.subject("ready", ">"),
        }
        path = f"CONSUMER.DURABLE.CREATE.{self.stream}.{CONSUMER}"
        await self._server.api(path, stream_name=self.stream, config=config)
        self.leased_max = leased_max

    # --- moving messages ---

    async def take(self, source: str, found: Sequence[StreamMessage], now: float) -> None:
        """Store messages from another queue, with attempts from 0."""
        anew = [msgspec.structs.replace(kept_of(m), visible_at=now, attempts=0) for m in found]
        await self._publish(
            [
                self._layout.successor(m, kept, source=source)
                for m, kept in zip(found, anew, strict=True)
            ]
        )
        self._next_new = None

    async def remove(self, found: Sequence[StreamMessage]) -> None:
        await _each(self._server.delete, [(self.stream, m.seq) for m in found])
        for each in found:
            self.leases.pop(each.seq, None)
            self.returned.pop(each.seq, None)
        self.forget()

    async def _promote(self, now: float) -> bool:
        """Make delayed messages that are due ready; True if there were any."""
        due = await self._delayed.due(now)
        for page in _pages(due):
            reads = [(self.stream, subject, 0) for subject in page]
            found = [each for each in await _each(self._server.first, reads) if each is not None]
            await self._publish([self._layout.successor(m, kept_of(m)) for m in found])
            await self.remove(found)
        return bool(due)

    async def _publish(self, successors: Sequence[Publication]) -> None:
        """Publish all successors, except those that another node has already published."""
        for page in _pages(successors):
            try:
                await self._server.publish(page)
            except KnownError:
                for each in page:
                    with suppress(KnownError):
                        await self._server.publish([each])

    # --- queries ---

    async def peek(self, limit: int) -> list[Message]:
        """The oldest messages, with their attempts as far as this node knows."""
        found = []
        async for page in self._server.pages(self.stream, limit):
            for each in page:
                kept = kept_of(each)
                lease, returned = self.leases.get(each.seq), self.returned.get(each.seq)
                seen = lease.attempts if lease else returned[0] if returned else kept.attempts
                found.append(message_of(each, kept, seen))
        return sorted(found, key=lambda message: message.timestamp_ms)

    async def depth(self) -> Depth:
        """Size of the queue, and the time when the next message is visible."""
        state = (await self._server.api(f"STREAM.INFO.{self.stream}")).state
        if state.messages == 0:
            return Depth(0, 0)
        consumer = await self._consumer()
        times = await self._delayed.first()
        times += [visible_at for _, visible_at in self.returned.values()]
        times += [self.doubt] if self.doubt is not None else []
        times += await self._next_new_at(state.last_seq, consumer.delivered.stream_seq)
        return Depth(
            state.messages,
            max(0, state.bytes - OVERHEAD_BYTES * state.messages),
            await self._oldest_ms(state.first_seq),
            min(times, default=None),
        )

    async def purge(self) -> int:
        """Remove all messages; returns their number."""
        purged = (await self._server.api(f"STREAM.PURGE.{self.stream}")).purged
        self.leases.clear()
        self.returned.clear()
        self.forget()
        return purged

    async def older(self, before_ms: int) -> list[StreamMessage]:
        """Messages with an earlier timestamp that are certainly not leased."""
        old: list[StreamMessage] = []
        after, more = 0, True
        while more:
            page, more = await self._server.read(self.stream, ">", after, LEASED_MAX)
            found = [each for each in page if kept_of(each).timestamp_ms < before_ms]
            old += found
            more = more and bool(found)
            after = page[-1].seq if page else 0
        delivered = (await self._consumer()).delivered.stream_seq if old else 0
        ready = self._layout.subject("ready", "")
        return [
            each
            for each in old
            if each.seq not in self.leases
            and (each.seq > delivered or each.seq in self.returned or ready not in each.subject)
        ]

    async def _consumer(self) -> ApiReply:
        return await self._server.api(f"CONSUMER.INFO.{self.stream}.{CONSUMER}")

    async def _next_new_at(self, last: int, after: int) -> list[float]:
        """The time since which the first never leased message is visible; empty if none.

        ``last`` is the stream's last sequence, ``after`` the last that the consumer delivered.  The
        consumer's own number of pending messages is not used: a loaded server updates it only some
        time after it has acknowledged a message.
        """
        if last <= after:
            return []
        if self._next_new is None or self._next_new[0] != after:
            ready = self._layout.subject("ready", ">")
            found = await self._server.first(self.stream, ready, after)
            if found is None:
                return []
            self._next_new = (after, kept_of(found).visible_at)
        return [self._next_new[1]]

    async def _oldest_ms(self, first_seq: int) -> int | None:
        if self._oldest is None or self._oldest[0] != first_seq:
            found = await self._server.first(self.stream, ">", 0)
            if found is None:
                return None
            self._oldest = (first_seq, kept_of(found).timestamp_ms)
        return self._oldest[1]


def stream_of(place: Place, name: str) -> str:
    """Name of a queue's stream."""
    return f"{place.name}_{name}"


async def open_work_queue(name: str, server: JetStream, place: Place, clock: Clock) -> WorkQueue:
    """Open the queue of that name; its stream and consumer are created if missing."""
    queue = WorkQueue(name, server, place, clock)
    wanted = StreamConfig(
        name=queue.stream,
        subjects=[QueueSubjects(place.name, name).subject(">")],
        retention="workqueue",
        storage="file",
        num_replicas=place.replicas,
        duplicate_window=DUPLICATE_SECONDS * 1_000_000_000,
        allow_direct=True,
        allow_atomic=True,
    )
    config = msgspec.to_builtins(wanted)
    found = await server.find(f"STREAM.INFO.{queue.stream}")
    if found is None:
        found = await server.api(f"STREAM.CREATE.{queue.stream}", **config)
    has = msgspec.json.decode(found.config, type=StreamConfig)
    if has.num_replicas != wanted.num_replicas and has.subjects == wanted.subjects:
        found = await server.api(f"STREAM.UPDATE.{queue.stream}", **config)
        has = msgspec.json.decode(found.config, type=StreamConfig)
    if not has.allow_atomic or has.subjects != wanted.subjects:
        raise RunError(
            f"{place.where}: the stream {queue.stream} is not one of edgesim's, "
            "or the server is older than 2.12",
            "use nats-server 2.12 or later, or another name in the URL",
        )
    if await server.find(f"CONSUMER.INFO.{queue.stream}.{CONSUMER}") is None:
        await queue.allow(LEASED_MAX)
    return queue


async def _each(call: Callable[..., Awaitable[_Result]], arguments: Any) -> list[_Result]:
    """Make all calls concurrently; returns the results in order, or raises one error."""
    results: dict[int, _Result] = {}

    async def one(index: int, each: tuple[Any, ...]) -> None:
        results[index] = await call(*each)

    try:
        async with anyio.create_task_group() as group:
            for index, each in enumerate(arguments):
                group.start_soon(one, index, each)
    except BaseExceptionGroup as failures:
        error = first_error(failures)
        if error is None:
            raise
        raise error from failures
    return [results[index] for index in sorted(results)]


def _delivery(reply: str) -> Delivery:
    delivery = delivery_of(reply)
    assert delivery is not None
    return delivery


def _pages(values: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    return (values[start : start + PAGE] for start in range(0, len(values), PAGE))

"""A queue's API for producers and operators: the platform's limits, delays and metrics.

Every queue of a store has one shared Queue object, because it also signals arrivals.  Errors are
the platform's: a cause, followed by Queues' own code.  The message of 10205 was seen in production;
the other causes follow it and Cloudflare's local runtime, so callers should match the code, not the
text.

Not enforced: 5,000 messages a second (10250), which replay and redrive legitimately exceed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anyio
import msgspec
import structlog

from edgesim.clock import Clock
from edgesim.config.queues import DELAY_SECONDS_MAX, QueueConfig
from edgesim.errors import PlatformError, UsageError
from edgesim.model import ContentType, Message
from edgesim.queues.driver import Depth, NewMessage, QueueDriver
from edgesim.queues.encoding import content_type_of, decode
from edgesim.queues.paused import PausedQueues
from edgesim.taps import Tap
from edgesim.tracing import carried

log = structlog.get_logger()

MESSAGE_BYTES_MAX = 128_000
BATCH_BYTES_MAX = 256_000
BATCH_MESSAGES_MAX = 100
BACKLOG_BYTES_MAX = 25_000_000_000
OPERATION_BYTES = 64_000
METADATA_BYTES = 100
"""Bytes that the platform adds to each message's size."""
EXPIRY_INTERVAL_SECONDS = 60
"""Minimum interval between two removals of expired messages from a queue in use."""


_DEFAULTS = QueueConfig()


class Metrics(msgspec.Struct, frozen=True):
    """The platform's reply to a send; bytes are those of the bodies."""

    backlog_count: int
    backlog_bytes: int
    oldest_message_timestamp_ms: int | None = None


class MessageSendRequest(msgspec.Struct, frozen=True):
    """One message of a batch; ``delay_seconds`` None uses the batch's, then the queue's delay."""

    body: bytes
    content_type: ContentType = "json"
    delay_seconds: float | None = None


class Queue:
    """A named queue; ``expired`` counts messages that exceeded the retention unconsumed.

    ``operations`` are billed by the platform: each 64 KB written, read or deleted (a delete counts
    as one here, because the message's size is not known any more).

    ``changed`` is the event of the next change relevant to a consumer; read it before the queue's
    state, so that no change is missed.
    """

    def __init__(
        self,
        name: str,
        driver: QueueDriver,
        clock: Clock,
        config: QueueConfig = _DEFAULTS,
        tap: Tap | None = None,
        paused: PausedQueues | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self._paused = paused
        self.expired = 0
        self.operations = 0
        self.changed = anyio.Event()
        self._driver = driver
        self._clock = clock
        self._tap = tap or Tap(f"queues.{name}", clock)
        self._next_expiry = 0.0

    # --- operators ---

    @property
    def paused(self) -> bool:
        """True while no message is delivered; messages are still stored."""
        return self._paused is not None and self.name in self._paused

    def pause(self) -> None:
        """Deliver no message until ``resume``, also after a restart."""
        assert self._paused is not None
        self._paused.add(self.name)
        self.wake()

    def resume(self) -> None:
        """Deliver messages again."""
        assert self._paused is not None
        self._paused.discard(self.name)
        self.wake()

    # --- producers ---

    async def send(
        self, body: bytes, content_type: ContentType = "json", delay_seconds: float | None = None
    ) -> Metrics:
        """Store one message, durable on return.  PlatformError if it exceeds a limit."""
        request = MessageSendRequest(body, content_type, delay_seconds)
        if _size(request) > MESSAGE_BYTES_MAX:
            raise PlatformError(
                f"message length of {_size(request)} bytes exceeds limit of "
                f"{MESSAGE_BYTES_MAX} bytes (10204)"
            )
        return await self._accept([request], self.config.delivery_delay)

    async def send_batch(
        self, messages: Sequence[MessageSendRequest], delay_seconds: float | None = None
    ) -> Metrics:
        """Store all of up to 100 messages or none; ``delay_seconds`` is for those without one."""
        _check_batch(messages)
        if delay_seconds is None:
            return await self._accept(messages, self.config.delivery_delay)
        if not is_delay(delay_seconds):
            raise PlatformError(
                f"batch delay of {delay_seconds} seconds is not within 0 and "
                f"{DELAY_SECONDS_MAX} (10202)"
            )
        return await self._accept(messages, delay_seconds)

    async def _accept(self, requests: Sequence[MessageSendRequest], delay: float) -> Metrics:
        for request in requests:
            _check_content(request)
        # Read the depth first: once the messages are durable, nothing may fail any more.
        before = await self.depth()
        count, size = len(requests), sum(len(request.body) for request in requests)
        if before.bytes + size > BACKLOG_BYTES_MAX:
            raise PlatformError("Queue storage limit exceeded (10251)")
        now = self._clock.now()
        timestamp_ms = int(now * 1000)
        trace = carried()
        messages = [
            NewMessage(
                id=self._clock.hex_id(),
                body=request.body,
                content_type=content_type_of(request.content_type),
                timestamp_ms=timestamp_ms,
                visible_at=now
                + (delay if request.delay_seconds is None else request.delay_seconds),
                trace=trace,
            )
            for request in requests
        ]
        with self.waking():
            await self._driver.send(self.name, messages)
        self.operations += sum(_billed(len(request.body)) for request in requests)
        self._tap.offer(count, (_passing("sent", message, 0) for message in messages))
        oldest_ms = timestamp_ms if before.oldest_ms is None else before.oldest_ms
        return Metrics(before.messages + count, before.bytes + size, oldest_ms)

    # --- operators ---

    async def metrics(self) -> Metrics:
        """The backlog, leased messages included."""
        depth = await self.depth()
        return Metrics(depth.messages, depth.bytes, depth.oldest_ms)

    async def depth(self) -> Depth:
        """The backlog as the store counts it, after periodic removal of expired messages."""
        await self._expire()
        return await self._driver.depth(self.name)

    async def peek(self, limit: int) -> Sequence[Message]:
        """Up to ``limit`` of the oldest messages, unchanged; ``attempts`` 0: never delivered."""
        await self._expire()
        return await self._driver.peek(self.name, limit)

    async def purge(self) -> int:
        """Remove every message present now, leased or not; returns their number.

        Messages that arrive meanwhile stay.
        """
        return await self._driver.purge(self.name)

    async def redrive(self, to: Queue) -> int:
        """Move every message, delayed and leased ones too, to another queue; returns the number.

        They are visible there at once, with attempts from 0.  May be repeated.
        """
        if to.name == self.name:
            raise UsageError(f"queue {self.name} cannot be redriven to itself")
        # Messages that arrive meanwhile (for example the same ones, failed again) stay here.
        waiting = (await self.depth()).messages
        with to.waking():
            moved = await self._driver.redrive(self.name, to.name, waiting, self._clock.now())
        self._bill_move(moved, to)
        return moved

    # --- consumers ---

    async def lease(
        self, limit: int, seconds: float, leased_max: int | None = None
    ) -> Sequence[Message]:
        """Lease up to ``limit`` visible messages, oldest first, for ``seconds``.

        At most ``leased_max`` messages are leased at a time, over all consumers of the queue.
        """
        now = self._clock.now()
        leased = await self._driver.lease(self.name, limit, now, now + seconds, leased_max)
        self.operations += sum(_billed(len(message.body)) for message in leased)
        passing = (_passing("delivered", message, message.attempts) for message in leased)
        self._tap.offer(len(leased), passing)
        return leased

    async def ack(self, lease_ids: Sequence[str]) -> int:
        """Remove leased messages; returns the number still under these leases."""
        acked = await self._driver.ack(self.name, lease_ids)
        self.operations += acked
        return acked

    async def release(
        self, lease_ids: Sequence[str], delay_seconds: float, counts: bool = True
    ) -> int:
        """End leases; messages are visible after ``delay_seconds``; returns their number.

        Without ``counts`` the delivery does not count as an attempt.
        """
        visible_at = self._clock.now() + delay_seconds
        with self.waking():
            return await self._driver.release(self.name, lease_ids, visible_at, counts)

    async def move(self, lease_ids: Sequence[str], to: Queue) -> int:
        """Move leased messages to another queue of the store, with attempts from 0; the number."""
        with to.waking():
            moved = await self._driver.move(self.name, lease_ids, to.name, self._clock.now())
        self._bill_move(moved, to)
        return moved

    @contextmanager
    def waking(self) -> Iterator[None]:
        """Wake waiting tasks, also after a failure: a failed call may have changed the store."""
        try:
            yield
        finally:
            self.wake()

    def wake(self) -> None:
        """Wake all tasks that wait for ``changed``."""
        changed, self.changed = self.changed, anyio.Event()
        changed.set()

    def _bill_move(self, moved: int, to: Queue) -> None:
        self.operations += moved  # deleted here
        to.operations += moved  # and written there
        if moved:
            to.show_moved(moved, self.name)

    def show_moved(self, messages: int, source: str) -> None:
        """Show watchers that messages have been moved here from the queue ``source``."""
        self._tap.offer(1, [{"event": "moved", "from": source, "messages": messages}])

    async def _expire(self) -> None:
        # Done on every read, so that messages expire in a queue without a consumer too.
        now = self._clock.now()
        if now < self._next_expiry:
            return
        before_ms = int((now - self.config.retention_seconds) * 1000)
        self._next_expiry = now + EXPIRY_INTERVAL_SECONDS  # expiry may take long: one run at a time
        try:
            count = await self._driver.expire(self.name, before_ms)
        except BaseException:
            self._next_expiry = now
            raise
        if count:
            self.expired += count
            log.warning(
                "queue messages expired unconsumed",
                queue=self.name,
                messages=count,
                retention_seconds=self.config.retention_seconds,
            )


def is_delay(seconds: float) -> bool:
    """True if the platform accepts these seconds as a delay (NaN is refused)."""
    return 0 <= seconds <= DELAY_SECONDS_MAX


def _passing(event: str, message: NewMessage | Message, attempts: int) -> dict[str, Any]:
    """A message as a tap shows it."""
    try:
        body = decode(message.body, content_type_of(message.content_type))
    except ValueError:
        body = message.body.decode("utf-8", "replace")
    return {"event": event, "id": message.id, "attempts": attempts, "body": body}


def _billed(size: int) -> int:
    return max(1, math.ceil(size / OPERATION_BYTES))


def _size(request: MessageSendRequest) -> int:
    return len(request.body) + METADATA_BYTES


def _check_batch(messages: Sequence[MessageSendRequest]) -> None:
    if not messages:
        raise PlatformError("sendBatch() requires at least one message", "TypeError")
    if len(messages) > BATCH_MESSAGES_MAX:
        raise PlatformError(
            f"batch message count of {len(messages)} exceeds limit of {BATCH_MESSAGES_MAX} (10206)"
        )
    sizes = [_size(message) for message in messages]
    if max(sizes) > MESSAGE_BYTES_MAX:
        raise PlatformError(
            f"message in batch has length {max(sizes)} bytes which exceeds single message size "
            f"limit of {MESSAGE_BYTES_MAX} bytes (10204)"
        )
    if sum(sizes) > BATCH_BYTES_MAX:
        raise PlatformError(
            f"batch size of {sum(sizes)} bytes exceeds limit of {BATCH_BYTES_MAX} bytes (10205)"
        )


def _check_content(request: MessageSendRequest) -> None:
    """Refuse a message that would make every batch with it fail at the consumer."""
    content_type = content_type_of(request.content_type)
    if request.delay_seconds is not None and not is_delay(request.delay_seconds):
        raise PlatformError(
            f"message delay of {request.delay_seconds} seconds is not within 0 and "
            f"{DELAY_SECONDS_MAX} (10203)"
        )
    try:
        decode(request.body, content_type)
    except ValueError as error:
        raise PlatformError(f"message body is not valid {content_type}: {error} (10208)") from error

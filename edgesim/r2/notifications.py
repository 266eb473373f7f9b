"""Event notifications: the messages, and their delivery to queues.

A message is made durable together with the object (the driver's outbox) and moved to its queue
afterwards by ``relay``.  Sending straight from ``put`` was rejected: a crash between the two either
loses the message or, if it was sent first, announces an object that does not exist.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime

import anyio
import anyio.lowlevel
import msgspec
import structlog

from edgesim.backoff import Backoff
from edgesim.clock import Clock
from edgesim.config.notifications import ACTIONS, Action, NotificationRule
from edgesim.errors import EdgesimError, RunError
from edgesim.model import R2Object
from edgesim.r2.driver import OutboxEntry, R2Driver
from edgesim.tracing import TraceContext, Tracer

Send = Callable[[str, bytes], Awaitable[None]]

_BATCH = 100
_DOUBT_SECONDS = 1.0
"""Interval between polls of a store that has in-doubt writes."""

TRACES_MAX = 10_000
"""Maximum notifications whose trace context is known; the oldest are forgotten first."""

_log = structlog.get_logger("edgesim.r2")


class _EventObject(msgspec.Struct, omit_defaults=True, rename="camel"):
    key: str
    size: int | None = None
    e_tag: str | None = None


class CopySource(msgspec.Struct, frozen=True):
    """The source object of a copy."""

    bucket: str
    object: str


class _Event(msgspec.Struct, omit_defaults=True, rename="camel"):
    account: str
    action: Action
    bucket: str
    object: _EventObject
    event_time: str
    copy_source: CopySource | None = None


class Notifications:
    """The notification rules of all buckets, and the task that delivers their messages."""

    def __init__(
        self,
        rules: Mapping[str, Sequence[NotificationRule]],
        clock: Clock,
        account: str,
        tracer: Tracer | None = None,
    ) -> None:
        """``rules`` by bucket."""
        self._rules = rules
        self._clock = clock
        self._account = account
        self._woken = anyio.Event()
        self._tracer = tracer
        # By outbox entry: the change's trace context, and its time in Unix seconds.
        self._traces: OrderedDict[str, tuple[TraceContext, float]] = OrderedDict()

    def messages_for(
        self,
        bucket: str,
        action: Action,
        object: R2Object,  # noqa: A002 - R2's word
        copy_source: CopySource | None = None,
        trace: TraceContext | None = None,
    ) -> list[OutboxEntry]:
        """The messages of this action, ready for the outbox.

        ``trace`` is that of the change.  It is not in the outbox: notifications that an earlier run
        left there begin traces of their own.
        """
        rules = [rule for rule in self._rules.get(bucket, ()) if rule.fires(action, object.key)]
        if not rules:
            return []
        event_object = _EventObject(object.key)
        if action in ACTIONS["object-create"]:
            event_object = _EventObject(object.key, object.size, object.etag)
        time = _iso(self._clock.datetime())
        event = _Event(self._account, action, bucket, event_object, time, copy_source)
        body = msgspec.json.encode(event)
        entries = [OutboxEntry(self._clock.hex_id(), rule.queue, body) for rule in rules]
        if trace is not None:
            for entry in entries:
                self._traces[entry.id] = trace, self._clock.now()
            while len(self._traces) > TRACES_MAX:
                self._traces.popitem(last=False)
        return entries

    def messages_again(self, bucket: str, object: R2Object) -> list[OutboxEntry]:  # noqa: A002
        """The messages of an existing object's creation, to be sent again."""
        in_parts = "-" in object.etag
        action: Action = "CompleteMultipartUpload" if in_parts else "PutObject"
        return self.messages_for(bucket, action, object)

    def wake(self) -> None:
        """Notify the relay that the outbox may have new entries."""
        self._woken.set()

    async def relay(self, driver: R2Driver, send: Send) -> None:
        """Move the outbox to the queues, at least once, until cancelled.

        Begins with entries left by an earlier run.  ``send(queue, body)`` returns once the message
        is durable.  A failure is logged and retried with backoff; until it passes, later
        notifications wait in the outbox.
        """
        while True:
            self._woken = anyio.Event()  # before reading: a later change sets the new event
            await self._drain(driver, send)
            with anyio.move_on_after(_DOUBT_SECONDS if driver.in_doubt else math.inf):
                await self._woken.wait()

    async def pending(self, driver: R2Driver) -> bool:
        """True if notifications are waiting for their queues, or if that cannot be read."""
        try:
            return bool(await driver.outbox(1))
        except RunError:  # the relay logs the cause and retries
            return True

    async def _drain(self, driver: R2Driver, send: Send) -> None:
        backoff = Backoff(random=self._clock.random)
        while True:
            try:
                while await self._move(driver, send):
                    backoff.reset()
            except Exception as error:  # noqa: BLE001 - any failure of store or queue is retried
                pause = backoff.failed()
                _log.error(
                    "r2 notifications are delayed",
                    error=str(error),
                    retry_seconds=round(pause, 3),
                    exc_info=not isinstance(error, EdgesimError),  # traceback for bugs
                )
                await anyio.sleep(pause)
            else:
                return

    async def _move(self, driver: R2Driver, send: Send) -> bool:
        """Send the oldest entries and settle those accepted; False if there were none."""
        entries = await driver.outbox(_BATCH)
        sent: list[str] = []
        try:
            for entry in entries:
                await self._send(entry, send)
                sent.append(entry.id)
                await anyio.lowlevel.checkpoint()  # local queues never yield by themselves
        finally:
            if sent:
                await driver.settle(sent)
        return bool(entries)

    async def _send(self, entry: OutboxEntry, send: Send) -> None:
        if self._tracer is None:
            await send(entry.queue, entry.body)
            return
        trace, changed_at = self._traces.get(entry.id, (None, None))
        attributes = {"cloudflare.queue.name": entry.queue}
        with self._tracer.span(
            "r2_event_notification", "producer", attributes, parent=trace, started_at=changed_at
        ):
            await send(entry.queue, entry.body)
        self._traces.pop(entry.id, None)


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")

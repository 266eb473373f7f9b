"""Delivery of finished traces to a Tail Worker, batched by count and age.

Delivery is at most once, as on the platform: if a tail handler throws, its batch is lost, counted
and logged as an error.  If the platform could not run the handler, the batch is retried.

Backpressure: Workers can produce traces faster than the Tail Worker processes them.  From
``PENDING_BYTES`` on the consumer is full: requests and queue batches wait before they start.
Running invocations and their calls are never held back, which would be a deadlock if the Tail
Worker waited for them; beyond ``PENDING_BYTES_MAX`` their traces are lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import anyio
import msgspec
import structlog

from edgesim.backoff import Backoff
from edgesim.config.project import TailConfig
from edgesim.isolates.host import weight
from edgesim.isolates.protocol.wire import NOT_RUN, Done
from edgesim.model import TraceItem
from edgesim.runtime.trace import shown
from edgesim.taps import Tap
from edgesim.tracing import TraceContext, TraceSources

PENDING_BYTES = 32 << 20
"""Size of pending traces from which new work waits."""
PENDING_BYTES_MAX = 4 * PENDING_BYTES
"""Maximum size of pending traces; traces beyond it are lost."""
MEAN_ITEMS = 8
"""Approximate number of traces over which the mean size is averaged."""
ITEM_BYTES = 1000
"""Approximate memory of a trace without its texts."""
LOG_BYTES = 250
"""Approximate memory of one log without its text."""
"""First and longest retry interval while the platform cannot run the handler."""

log = structlog.get_logger()

Deliver = Callable[[Sequence[TraceItem], TraceSources], Awaitable[Done]]
"""Runs the tail handler over traces; the sources are the trace contexts of their invocations."""


class TraceSink(Protocol):
    """Receiver of finished traces."""

    def add(self, item: TraceItem, trace: TraceContext | None = None) -> None:
        """Receive one finished trace; ``trace`` is the context of its invocation."""


class TailConsumer:
    """Buffer and delivery loop of one Tail Worker; ``items`` and ``lost`` count traces."""

    def __init__(self, worker: str, config: TailConfig, tap: Tap | None = None) -> None:
        self.worker = worker
        self.items = 0
        self.lost = 0
        self._config = config
        self._tap = tap
        self.pending_bytes = 0
        """Approximate memory of the pending traces."""
        self._mean_bytes = 0.0
        # (arrival in event loop time, size in bytes, trace, its context)
        self._buffer: deque[tuple[float, int, TraceItem, TraceContext | None]] = deque()
        self._in_hand = 0
        self._arrived = anyio.Event()
        self._hurry = False

    @property
    def pending(self) -> int:
        """Number of traces that no tail handler has processed yet."""
        return len(self._buffer) + self._in_hand

    def waiting(self) -> list[TraceItem]:
        """The traces that wait for their delivery, oldest first."""
        return [item for _, _, item, _ in self._buffer]

    @property
    def is_full(self) -> bool:
        """True while new work has to wait for the traces of earlier work."""
        return not self.has_room(0)

    def has_room(self, in_flight: int) -> bool:
        """Return False while new work has to wait; ``in_flight`` invocations will add traces too.

        Those count for at most half of PENDING_BYTES: they may be waiting for something else.
        """
        expected = min(in_flight * self._mean_bytes, PENDING_BYTES / 2)
        return self.pending_bytes + expected < PENDING_BYTES

    def add(self, item: TraceItem, trace: TraceContext | None = None) -> None:
        """Buffer a finished trace.

        Traces of the Tail Worker itself, and traces without an event, are not delivered.
        """
        if item.script_name == self.worker or item.event is None:
            return
        size = bytes_of(item)
        if self.pending_bytes + size > PENDING_BYTES_MAX:
            self.lost += 1
            log.error("tail buffer is full, trace lost", tail_worker=self.worker)
            return
        self.pending_bytes += size
        self._mean_bytes += (size - self._mean_bytes) / MEAN_ITEMS
        self._buffer.append((asyncio.get_running_loop().time(), size, item, trace))
        self._arrived.set()
        if self._tap is not None:
            self._tap.offer(1, map(shown, [item]))

    def flush_now(self) -> None:
        """Deliver the next batch without waiting for more traces."""
        self._hurry = True
        self._arrived.set()

    async def run(self, deliver: Deliver) -> None:
        """Deliver batches until cancelled, one at a time to keep their order."""
        while True:
            await self._arrive()
            # The deadline is the oldest trace's, whatever time the last delivery took.
            oldest = self._buffer[0][0]
            with anyio.CancelScope(deadline=oldest + self._config.max_seconds):
                while not (self._hurry or self.is_full or self._has_batch):
                    self._arrived = anyio.Event()
                    await self._arrived.wait()
            self._hurry = False
            count = min(len(self._buffer), self._config.max_items)
            taken = [self._buffer.popleft() for _ in range(count)]
            try:
                sources = TraceSources(trace for *_, trace in taken)
                await self._deliver([item for _, _, item, _ in taken], sources, deliver)
            finally:
                self.pending_bytes -= sum(size for _, size, _, _ in taken)

    @property
    def _has_batch(self) -> bool:
        return len(self._buffer) >= self._config.max_items

    async def _arrive(self) -> None:
        while not self._buffer:
            self._hurry = False
            self._arrived = anyio.Event()
            await self._arrived.wait()

    async def _deliver(
        self, batch: list[TraceItem], sources: TraceSources, deliver: Deliver
    ) -> None:
        self._in_hand = len(batch)
        try:
            done = await self._insist(batch, sources, deliver)
        finally:
            self._in_hand = 0
        if done.outcome == "ok":
            self.items += len(batch)
        else:
            self.lost += len(batch)
            log.error(
                "tail handler failed, traces lost",
                tail_worker=self.worker,
                traces=len(batch),
                outcome=done.outcome,
            )

    async def _insist(
        self, batch: list[TraceItem], sources: TraceSources, deliver: Deliver
    ) -> Done:
        """Deliver the batch; retry with backoff while the platform cannot run the handler."""
        backoff = Backoff()
        while (done := await deliver(batch, sources)).fault == NOT_RUN:
            if not backoff.failures:
                reason = done.exceptions[0].message if done.exceptions else done.outcome
                log.error(
                    "tail delivery failed, will retry",
                    tail_worker=self.worker,
                    traces=len(batch),
                    error=reason,
                )
            await anyio.sleep(backoff.failed())
        if backoff.failures:
            log.info("tail delivery recovered", tail_worker=self.worker, failures=backoff.failures)
        return done


def bytes_of(item: TraceItem) -> int:
    """Approximate memory of a trace."""
    size = ITEM_BYTES + LOG_BYTES * len(item.logs)
    for entry in item.logs:
        size += sum(map(_value_bytes, entry.message))
    for exception in item.exceptions:
        size += LOG_BYTES + len(exception.message) + len(exception.stack or "")
    size += sum(map(_value_bytes, item.diagnostics_channel_events))
    request = (item.event or {}).get("request")
    if request is not None:
        size += len(request["url"]) + sum(map(len, request["headers"].values()))
    return size


def _value_bytes(value: Any) -> int:
    """Approximate memory of a text, or of a value of JSON: an empty list takes 80 bytes there."""
    if isinstance(value, str):
        return len(value)
    text = msgspec.json.encode(value)
    return len(text) + weight.of_json(text)

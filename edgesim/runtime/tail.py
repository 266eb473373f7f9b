"""Tail: finished traces, batched by count and age, on their way to a Tail Worker.

At most once, as on the platform: a tail handler that throws has lost its batch, which is counted
and loud in the log.  A batch that the platform could not run a handler for is tried again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import anyio
import structlog

from edgesim.config.project import TailConfig
from edgesim.isolates.wire import NOT_RUN, Done
from edgesim.model import TraceItem

BUFFER_ITEMS_MAX = 100_000
BACKOFF_SECONDS = (0.1, 10.0)
"""The first and the longest wait where the platform cannot run the handler."""

log = structlog.get_logger()

Deliver = Callable[[Sequence[TraceItem]], Awaitable[Done]]


class TraceSink(Protocol):
    """Whoever is told of finished traces."""

    def add(self, item: TraceItem) -> None:
        """Take one."""


class TailConsumer:
    """The way to one Tail Worker."""

    def __init__(self, worker: str, config: TailConfig) -> None:
        self.worker = worker
        self.items = 0
        self.lost = 0
        self._config = config
        self._buffer: deque[tuple[float, TraceItem]] = deque()  # with the loop's time of arrival
        self._in_hand = 0
        self._arrived = anyio.Event()
        self._hurry = False

    @property
    def pending(self) -> int:
        """Traces that no tail handler has finished with yet."""
        return len(self._buffer) + self._in_hand

    def add(self, item: TraceItem) -> None:
        """Take a finished trace.

        A Worker's own traces do not come back to it, and one without an event is not delivered.
        """
        if item.script_name == self.worker or item.event is None:
            return
        if len(self._buffer) >= BUFFER_ITEMS_MAX:
            self.lost += 1
            log.error("tail buffer is full, trace lost", tail_worker=self.worker)
            return
        self._buffer.append((anyio.current_time(), item))
        self._arrived.set()

    def hurry(self) -> None:
        """Do not wait for more before the next delivery."""
        self._hurry = True
        self._arrived.set()

    async def run(self, deliver: Deliver) -> None:
        """Deliver batches, one after another so that order is kept, for ever."""
        while True:
            await self._arrive()
            # By the age of the oldest, however long the last delivery took.
            oldest = self._buffer[0][0]
            with anyio.CancelScope(deadline=oldest + self._config.max_seconds):
                while len(self._buffer) < self._config.max_items and not self._hurry:
                    self._arrived = anyio.Event()
                    await self._arrived.wait()
            self._hurry = False
            count = min(len(self._buffer), self._config.max_items)
            await self._deliver([self._buffer.popleft()[1] for _ in range(count)], deliver)

    async def _arrive(self) -> None:
        while not self._buffer:
            self._hurry = False
            self._arrived = anyio.Event()
            await self._arrived.wait()

    async def _deliver(self, batch: list[TraceItem], deliver: Deliver) -> None:
        self._in_hand = len(batch)
        try:
            done = await self._insist(batch, deliver)
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

    async def _insist(self, batch: list[TraceItem], deliver: Deliver) -> Done:
        """Deliver the batch, again and again while the platform cannot run the handler at all."""
        pause, longest = BACKOFF_SECONDS
        failures = 0
        while (done := await deliver(batch)).fault == NOT_RUN:
            failures += 1
            if failures == 1:
                reason = done.exceptions[0].message if done.exceptions else done.outcome
                log.error(
                    "traces cannot be delivered, will try again",
                    tail_worker=self.worker,
                    traces=len(batch),
                    error=reason,
                )
            await anyio.sleep(pause)
            pause = min(2 * pause, longest)
        if failures:
            log.info("traces are delivered again", tail_worker=self.worker, failures=failures)
        return done

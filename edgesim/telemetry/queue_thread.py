"""A bounded queue of spans or log records, and the thread that sends them.

Nothing waits for a receiver: ``put`` never blocks, and what finds no room is dropped and counted.
The asyncio loop is not used for sending, since OpenTelemetry's exporter blocks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import anyio
import structlog

from edgesim import urls

ITEMS_MAX = 10_000
"""Maximum items that wait, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise."""
BYTES_MAX = 16 << 20
"""Maximum approximate memory of the items that wait."""
BATCH = 512
DELAY_SECONDS = 1.0
"""Maximum time that an item waits for others before it is sent."""
POLL_SECONDS = 0.01
ABORT_SECONDS = 0.5
"""Time for a request in progress to end after the exporter was shut down."""

Item = TypeVar("Item")

log = structlog.get_logger()


class Sender(Protocol[Item]):
    """Sends batches to a receiver; used by one thread, but for ``stop``."""

    def send(self, batch: list[Item]) -> str:
        """Send a batch; returns the error, empty if the receiver has accepted it."""

    def stop(self) -> None:
        """Make the request in progress give up its retries."""


class QueueThread(Generic[Item]):
    """Queue and thread for one signal: ``traces`` or ``logs``."""

    def __init__(
        self,
        signal: str,
        url: str,
        open_sender: Callable[[str], Sender[Item]],
        size_of: Callable[[Item], int],
        items_max: int | None,
    ) -> None:
        self.exported = 0
        """Number of items that the receiver has accepted."""
        self.dropped = 0
        """Number of items that found no room, or were left at the end."""
        self.failed = 0
        """Number of items that the receiver refused or did not take in time."""
        self._signal = signal
        self._url = url
        self._open_sender = open_sender
        self._sender: Sender[Item] | None = None
        self._size_of = size_of
        self._items_max = items_max or ITEMS_MAX
        self._items: deque[tuple[int, Item]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._problem = ""
        self._full = False
        self._thread = threading.Thread(target=self._run, name=f"otlp {signal}", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Queue an item, or drop it if there is no room."""
        size = self._size_of(item)
        with self._changed:
            if len(self._items) >= self._items_max or self._bytes + size > BYTES_MAX:
                self.dropped += 1
                first, self._full = not self._full, True
            else:
                self._items.append((size, item))
                self._bytes += size
                first = False
                if len(self._items) in {1, BATCH}:
                    self._changed.notify()
        if first:
            log.warning("telemetry queue is full, items dropped", signal=self._signal)

    @property
    def pending(self) -> int:
        """Number of items that wait."""
        return len(self._items)

    async def close(self, seconds: float) -> None:
        """Send what waits, for at most that time; the rest is dropped and counted.

        A receiver that is known to be down gets no more time.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._problem or not await self._ended(seconds):
            if self._sender is not None:
                self._sender.stop()
            await self._ended(ABORT_SECONDS)
        left = len(self._items)
        if left:
            self.dropped += left
            log.warning("telemetry not exported before the end", signal=self._signal, items=left)

    async def _ended(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            while self._thread.is_alive():  # noqa: ASYNC110 (a thread sends no event)
                await anyio.sleep(POLL_SECONDS)
        return not self._thread.is_alive()

    # --- the thread ---

    def _run(self) -> None:
        self._sender = self._open_sender(self._url)
        while batch := self._next_batch():
            problem = self._sender.send(batch)
            if problem:
                self.failed += len(batch)
            else:
                self.exported += len(batch)
                self._full = False
            self._report(problem)
            if problem and self._closing:
                return

    def _next_batch(self) -> list[Item]:
        """Wait for a batch; empty at the end."""
        with self._changed:
            while not self._items and not self._closing:
                self._changed.wait()
            if len(self._items) < BATCH and not self._closing:
                self._changed.wait(DELAY_SECONDS)
            taken = [self._items.popleft() for _ in range(min(len(self._items), BATCH))]
            self._bytes -= sum(size for size, _ in taken)
        return [item for _, item in taken]

    def _report(self, problem: str) -> None:
        """Log the first failure and the recovery, not each batch."""
        if problem and not self._problem:
            log.warning(
                "telemetry cannot be exported, will try again",
                signal=self._signal,
                url=urls.redact(self._url),
                error=problem,
            )
        elif self._problem and not problem:
            log.info(
                "telemetry is exported again",
                signal=self._signal,
                failed=self.failed,
                dropped=self.dropped,
            )
        self._problem = problem

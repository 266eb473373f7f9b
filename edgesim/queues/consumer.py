"""A push consumer: forms batches, delivers them, and settles each message.

A batch is delivered when it is full or when its first message has been visible for
``max_batch_timeout``, whichever is first; an empty queue delivers nothing.  Messages are leased at
that moment and not before, because a lease counts as an attempt, and a reload while a batch fills
should not cost one.  (One exception: if delayed messages make the queue look full, the visible
messages are leased and held while the rest of the batch arrives.)

All waits use anyio and last for seconds computed from the clock, so they follow a virtual clock.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import anyio
import structlog

from edgesim.backoff import Backoff
from edgesim.clock import Clock
from edgesim.config.queues import DELAY_SECONDS_MAX, ConsumerConfig
from edgesim.errors import RunError
from edgesim.model import BatchResult, Message, Retry
from edgesim.queues.dead_letters import DeadLetters
from edgesim.queues.driver import Depth
from edgesim.queues.producer import Metrics, Queue, is_delay

log = structlog.get_logger()

LEASE_SECONDS = 16 * 60
"""The platform ends a consumer after 15 minutes; the slack is for settling its batch."""
AUTO_CONCURRENCY_MAX = 10
RECHECK_SECONDS = 60.0
"""Maximum wait until a future time: the wall clock may be set meanwhile."""
OTHERS_SECONDS = 1.0
"""Pause before the next poll of a queue whose visible messages other nodes have leased."""

Deliver = Callable[[Sequence[Message], Metrics], Awaitable[BatchResult]]
"""Delivers a batch, with the queue's current backlog."""
_Result = TypeVar("_Result")


class Consumer:
    """One consumer of a queue; the counters count messages since its creation.

    ``delivered``: acknowledged.  ``retried``: released for another delivery.  ``dead``: moved to
    the dead-letter queue.  ``lost``: deleted after the last delivery, without a dead-letter queue.
    ``in_flight``: currently leased.  ``concurrency``: current limit of batches in flight.
    """

    def __init__(
        self,
        queue: Queue,
        settings: ConsumerConfig,
        deliver: Deliver,
        clock: Clock,
        dead_letter: Queue | None = None,
    ) -> None:
        self.queue = queue
        self.settings = settings
        self.delivered = 0
        self.retried = 0
        self.in_flight = 0
        self.concurrency = settings.max_concurrency or 1
        self._deliver = deliver
        self._clock = clock
        self._dead_letters = DeadLetters(queue, settings.dead_letter_queue, dead_letter)
        self._batches = 0
        self._resting = False
        self._crowded = False  # a batch is ready and must wait for another to end
        self._orphans_back: list[float] = []  # expiry times of leases that no task holds
        self._delivery = Backoff()  # after failures of the platform to deliver a batch
        self._pause_ends = -math.inf  # event loop time

    @property
    def dead(self) -> int:
        return self._dead_letters.dead

    @property
    def lost(self) -> int:
        return self._dead_letters.lost

    async def run(self) -> None:
        """Consume until cancelled; batches in flight are then released at once."""
        async with anyio.create_task_group() as group:
            while True:
                deadline = await self._until_ready()
                changed = self.queue.changed
                batch = await self._collect(deadline)
                if batch:
                    self._batches += 1
                    group.start_soon(self._consume, batch)
                else:
                    await self._wait(changed, OTHERS_SECONDS)

    def rest(self) -> None:
        """Start no further batch; batches that are forming or in flight are completed."""
        self._resting = True

    async def idle(self) -> bool:
        """True if no message is visible, delayed or in flight."""
        return self.in_flight == 0 and (await self.queue.depth()).messages == 0

    # --- forming a batch ---

    async def _until_ready(self) -> float:
        """Wait until a batch is ready and may run; returns the time to deliver it by."""
        timeout = self.settings.max_batch_timeout
        while True:
            if self._pause_ends > anyio.current_time():
                await anyio.sleep_until(self._pause_ends)
            changed = self.queue.changed
            if self.queue.paused:
                await changed.wait()
                continue
            depth = await self._insist(self.queue.depth)
            now, first = self._clock.now(), self._first(depth)
            ready = self._is_ready(depth, now)
            self._crowded = ready and (self._resting or self._batches >= self.concurrency)
            if self._crowded:
                await changed.wait()
            elif ready:
                return first + timeout
            else:
                await self._wait(changed, (first if now < first else first + timeout) - now)

    def _is_ready(self, depth: Depth, now: float) -> bool:
        first = self._first(depth)
        # An upper bound of the visible messages: the store does not report their exact number.
        waiting = depth.messages - self.in_flight
        full = first <= now and waiting >= self.settings.max_batch_size
        return full or first + self.settings.max_batch_timeout <= now

    async def _collect(self, deadline: float) -> list[Message]:
        """Lease messages until the batch is full or ``deadline`` is reached."""
        batch: list[Message] = []
        size, concurrency = self.settings.max_batch_size, self.settings.max_concurrency
        leased_max = None if concurrency is None else size * concurrency
        try:
            while True:
                changed = self.queue.changed
                if self.queue.paused:
                    self.in_flight -= len(batch)
                    await self._give_back(batch, counts=False)
                    return []
                lease = partial(self._lease, size - len(batch), leased_max)
                leased = await self._insist(lease)
                batch += leased
                self.in_flight += len(leased)
                if len(batch) == size or self._clock.now() >= deadline:
                    return batch
                first = _first_visible(await self._insist(self.queue.depth))
                await self._wait(changed, min(deadline, first) - self._clock.now())
        except anyio.get_cancelled_exc_class():
            self.in_flight -= len(batch)
            await self._give_back(batch)
            raise

    def _first(self, depth: Depth) -> float:
        """The time when a message can be leased; infinity if there is none."""
        return min(_first_visible(depth), *self._orphans_back, math.inf)

    async def _lease(self, limit: int, leased_max: int | None) -> Sequence[Message]:
        """Lease messages; a failed call may have leased some, which no task holds until expiry."""
        now = self._clock.now()
        try:
            leased = await self.queue.lease(limit, LEASE_SECONDS, leased_max)
        except RunError:
            self._orphans_back.append(now + LEASE_SECONDS)
            raise
        self._orphans_back = [time for time in self._orphans_back if time > now]
        return leased

    async def _wait(self, changed: anyio.Event, seconds: float) -> None:
        """Wait for a change of the queue, at most ``seconds``."""
        with anyio.move_on_after(seconds if math.isinf(seconds) else min(seconds, RECHECK_SECONDS)):
            await changed.wait()

    # --- delivering and settling a batch ---

    async def _consume(self, batch: Sequence[Message]) -> None:
        failed = False
        try:
            result = await self._result(batch)
            failed = result.failed
            if result.not_delivered is None:
                self._delivery.reset()
                await self._settle(batch, result)
            else:
                await self._postpone(batch)
        finally:
            self.in_flight -= len(batch)
            self._batches -= 1
            self._scale(failed)
            self.queue.wake()

    async def _result(self, batch: Sequence[Message]) -> BatchResult:
        """Deliver the batch; an error or an invalid result retries all of it."""
        retries = [Retry(message.id) for message in batch]
        try:
            result = await self._deliver(batch, await self._insist(self.queue.metrics))
        except anyio.get_cancelled_exc_class():
            await self._give_back(batch)
            raise
        except Exception as error:  # noqa: BLE001 (a bug in edgesim, which must cost no attempt)
            self._say_why(batch, repr(error), exc_info=True)
            return BatchResult(retries=retries, failed=True, not_delivered=repr(error))
        if result.not_delivered is not None:
            self._say_why(batch, result.not_delivered)
            return result
        try:
            _check_delays(result)
        except ValueError as error:
            log.error("queue batch not delivered", queue=self.queue.name, error=str(error))
            return BatchResult(retries=retries, failed=True)
        return result

    def _say_why(self, batch: Sequence[Message], reason: str, *, exc_info: bool = False) -> None:
        """Log the first of consecutive delivery failures of the platform."""
        if not self._delivery.failures:
            log.error(
                "queue batch not delivered",
                queue=self.queue.name,
                messages=len(batch),
                error=reason,
                exc_info=exc_info,
            )

    # --- failures of the platform, not of the handler ---

    async def _postpone(self, batch: Sequence[Message]) -> None:
        """Release an undelivered batch with a backoff, without counting the attempt.

        No other batch starts during the backoff: it would fail as well.
        """
        now = anyio.current_time()
        if now >= self._pause_ends:  # concurrent failures count as one
            self._delivery.failed()
        pause = self._delivery.pause
        self._pause_ends = max(self._pause_ends, now + pause)
        leases = [message.lease_id for message in batch]
        await self._insist(partial(self.queue.release, leases, pause, False))
        self.retried += len(batch)

    async def _settle(self, batch: Sequence[Message], result: BatchResult) -> None:
        """Apply the result; a message that it does not name is retried."""
        acked, delays = set(result.acks), {r.id: r.delay_seconds for r in result.retries}
        acks = [message.lease_id for message in batch if message.id in acked]
        failed = [message for message in batch if message.id not in acked]
        dead = [message for message in failed if message.attempts > self.settings.max_retries]
        retries: dict[float, list[str]] = {}
        for message in failed:
            if message.attempts <= self.settings.max_retries:
                own = delays.get(message.id)
                delay = self.settings.retry_delay if own is None else own
                retries.setdefault(delay, []).append(message.lease_id)
        if acks:
            await self._insist(partial(self.queue.ack, acks))
            self.delivered += len(acks)
        if dead:
            await self._insist(partial(self._dead_letters.bury, dead))
        for delay, leases in retries.items():
            await self._insist(partial(self.queue.release, leases, delay))
            self.retried += len(leases)

    async def _give_back(self, batch: Sequence[Message], counts: bool = True) -> None:
        leases = [message.lease_id for message in batch]
        await self._insist(partial(self.queue.release, leases, 0, counts))

    def _scale(self, failed: bool) -> None:
        """Adjust automatic concurrency when a batch ends: one more if other batches are waiting.

        One less if none is waiting, or if the handler failed; messages that it only retried do not
        count as a failure.
        """
        if self.settings.max_concurrency is None:
            wanted = self.concurrency + (1 if self._crowded and not failed else -1)
            self.concurrency = min(max(wanted, 1), AUTO_CONCURRENCY_MAX)

    async def _insist(self, step: Callable[[], Awaitable[_Result]]) -> _Result:
        """Call the store with backoff until it succeeds.

        The call is shielded from cancellation, so that a decision is carried out; the pause after a
        failure is not, so that a broken store cannot block a shutdown.
        """
        backoff = Backoff()
        while True:
            try:
                with anyio.CancelScope(shield=True):
                    return await step()
            except RunError as error:
                pause = backoff.failed()
                log.error(
                    "queue store failed",
                    queue=self.queue.name,
                    error=str(error),
                    retry_seconds=pause,
                )
            await anyio.sleep(pause)


def _first_visible(depth: Depth) -> float:
    """The time when the first unleased message is visible; infinity if there is none."""
    return math.inf if depth.next_visible_at is None else depth.next_visible_at


def _check_delays(result: BatchResult) -> None:
    for retry in result.retries:
        if retry.delay_seconds is not None and not is_delay(retry.delay_seconds):
            raise ValueError(
                f"retry delay of {retry.delay_seconds} seconds is not within 0 and "
                f"{DELAY_SECONDS_MAX}"
            )

"""Draining: waits until work in progress is finished.

A drain finishes everything, and reports what is left.  A shutdown finishes only work that would
otherwise be lost or delayed: messages that are delayed, or that no Worker consumes, are stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import anyio
import structlog

from edgesim import drivers
from edgesim.errors import RunError
from edgesim.runtime.worker import Worker
from edgesim.simulator.leftover import Leftover, leftover
from edgesim.simulator.primitives import Primitives

POLL_SECONDS = 0.02
CLOSE_SECONDS = 10.0
"""Maximum time that a closing Simulator waits for invocations and traces in progress."""

log = structlog.get_logger()


class Drain:
    """Checks every stage for work in progress."""

    def __init__(self, primitives: Primitives, workers: Mapping[str, Worker]) -> None:
        self._primitives = primitives
        self._workers = workers

    async def drain(self, timeout: float) -> Leftover:
        """Roll pipelines and streams, and deliver until nothing is left, until the timeout.

        Returns the work left.  Returns early if none of it can finish in time: messages without a
        consumer, or that wait for a later retry.
        """
        deadline = self._primitives.clock.now() + timeout
        found: list[Leftover] = []

        async def is_over() -> bool:
            look = await leftover(self._primitives, self._workers, deadline)
            found[:] = [look]
            return look.is_stuck or not look.left

        if await self._until(is_over, timeout):
            return found[0]
        try:
            return await leftover(self._primitives, self._workers, deadline)
        except RunError as error:
            return Leftover({"stores": str(error)})

    def _activity(self) -> tuple[int, int, int]:
        """Counters that grow with any progress, so that none is missed between two polls."""
        return (
            sum(worker.outcomes.total() for worker in self._workers.values()),
            sum(buffer.objects for buffer in self._primitives.buffers),
            sum(queue.operations for queue in self._primitives.queues.values()),
        )

    async def leave(self, timeout: float) -> bool:
        """Finish the work of a shutdown; False on timeout.

        Messages in stores shared with other nodes are left to those nodes.
        """
        if drivers.properties("queues", self._primitives.project.backends.queues).shared:
            return await self._until(self._has_left, timeout)
        deadline = self._primitives.clock.now() + timeout
        return await self._until(partial(self._is_quiet, deadline), timeout)

    async def is_quiet(self, deadline: float) -> bool:
        """True if no work is in progress; messages delayed past ``deadline`` are ignored."""
        return await self._steady(partial(self._is_quiet, deadline))

    async def _is_quiet(self, deadline: float) -> bool:
        if await self._primitives.notifications.pending(self._primitives.backends.r2):
            return False
        for consumer in self._primitives.consumers:
            if consumer.queue.paused and not consumer.in_flight:
                continue
            depth = await consumer.queue.depth()
            if consumer.in_flight or (depth.next_visible_at or deadline) < deadline:
                return False
        return self._is_idle()

    async def finish(self) -> None:
        """Wait for invocations and for the delivery of their traces, at most CLOSE_SECONDS."""
        with anyio.move_on_after(CLOSE_SECONDS) as scope:
            while self._is_busy():
                self._hurry_tails()
                await anyio.sleep(POLL_SECONDS)
        if scope.cancelled_caught:
            lost = sum(tail.pending for tail in self._primitives.tails.values())
            log.error("project closed before its tails were drained", traces_lost=lost)

    async def _until(self, quiet: Callable[[], Awaitable[bool]], timeout: float) -> bool:
        with anyio.move_on_after(timeout):
            while True:
                self._hurry_tails()
                if not self._is_busy():
                    for buffer in self._primitives.buffers:
                        await buffer.roll()
                    try:
                        if await self._steady(quiet):
                            return True
                    except RunError as error:  # an unreachable store may recover in time
                        log.warning("drain waits for a store", error=str(error))
                await anyio.sleep(POLL_SECONDS)
        return False

    async def _steady(self, quiet: Callable[[], Awaitable[bool]]) -> bool:
        """Return the result of ``quiet``; False if any work was done meanwhile.

        ``quiet`` checks one stage after the other, so it can miss work that moves from an unchecked
        stage to one that it has checked already.
        """
        before = self._activity()
        return await quiet() and before == self._activity()

    async def _has_left(self) -> bool:
        if await self._primitives.notifications.pending(self._primitives.backends.r2):
            return False
        for consumer in self._primitives.consumers:
            consumer.rest()
        in_flight = any(consumer.in_flight for consumer in self._primitives.consumers)
        return not in_flight and self._is_idle()

    def _is_idle(self) -> bool:
        return not self._is_busy() and not any(each.pending for each in self._primitives.buffers)

    def _is_busy(self) -> bool:
        return any(worker.in_flight for worker in self._workers.values()) or any(
            tail.pending for tail in self._primitives.tails.values()
        )

    def _hurry_tails(self) -> None:
        for tail in self._primitives.tails.values():
            tail.flush_now()

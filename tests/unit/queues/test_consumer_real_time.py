"""The consumer on the real event loop and clock; the conformance suite uses virtual time."""

import anyio
import pytest

from edgesim.clock import Clock
from edgesim.config.queues import ConsumerConfig
from edgesim.model import BatchResult
from edgesim.queues.consumer import Consumer
from edgesim.queues.memory import open_queues
from edgesim.queues.producer import Queue
from tests.loops import on_both_loops  # noqa: F401 (every test here runs on both loops)

pytestmark = pytest.mark.anyio


async def test_timeouts_and_delays_pass_in_real_time():
    """A batch waits for its timeout and a delayed message for its delay, by the wall clock."""
    clock, done = Clock(), anyio.Event()
    delivered: list[tuple[bytes, float]] = []

    async def deliver(batch, metrics):
        delivered.extend((m.body, clock.now() - start) for m in batch)
        if len(delivered) == 2:
            done.set()
        return BatchResult(acks=[m.id for m in batch])

    async with open_queues("memory:", clock) as driver, anyio.create_task_group() as group:
        queue = Queue("q", driver, clock)
        settings = ConsumerConfig("q", max_batch_timeout=0.02)
        group.start_soon(Consumer(queue, settings, deliver, clock).run)
        start = clock.now()
        await queue.send(b"delayed", "text", delay_seconds=0.05)
        await queue.send(b"now", "text")
        with anyio.fail_after(60):
            await done.wait()
        group.cancel_scope.cancel()
    (first, soon), (second, late) = delivered
    assert (first, second) == (b"now", b"delayed")
    assert soon >= 0.02
    # On a slow machine the delay may be over before the first batch is.
    assert late >= (0.07 if soon < 0.05 else 0.05)

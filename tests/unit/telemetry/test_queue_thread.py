"""The queue in front of a receiver: bounded, counted, and never in the way."""

import threading

import anyio
import pytest
import structlog

from edgesim.telemetry import queue_thread
from edgesim.telemetry.queue_thread import BATCH, BYTES_MAX, QueueThread

pytestmark = pytest.mark.anyio
SECONDS = 20


class Receiver:
    """A sender whose replies the test decides; ``gate`` holds them back."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.problem = ""
        self.gate = threading.Event()
        self.gate.set()
        self.busy = threading.Event()

    def send(self, batch: list[int]) -> str:
        self.busy.set()
        assert self.gate.wait(SECONDS)
        self.batches.append(batch)
        return self.problem

    def stop(self) -> None:
        self.problem = "stopped"
        self.gate.set()


@pytest.fixture
def receiver():
    return Receiver()


@pytest.fixture(autouse=True)
def _short_delay(monkeypatch):
    monkeypatch.setattr(queue_thread, "DELAY_SECONDS", 0.01)


def opened(receiver, size=1, items_max=None):
    return QueueThread("traces", "http://x", lambda _: receiver, lambda _: size, items_max)


async def until(condition):
    with anyio.fail_after(SECONDS):
        while not condition():  # noqa: ASYNC110 (a thread sends no event)
            await anyio.sleep(0.001)


async def test_everything_arrives_in_order_and_in_batches(receiver):
    """The end waits for what is queued."""
    queue = opened(receiver)
    for number in range(3 * BATCH):
        queue.put(number)
    await queue.close(SECONDS)
    assert [each for batch in receiver.batches for each in batch] == list(range(3 * BATCH))
    assert all(len(batch) <= BATCH for batch in receiver.batches)
    assert (queue.exported, queue.dropped, queue.failed, queue.pending) == (3 * BATCH, 0, 0, 0)


@pytest.mark.parametrize(("size", "items_max", "room"), [(1, 5, 5), (BYTES_MAX // 4, None, 4)])
async def test_a_receiver_that_does_not_reply_costs_bounded_memory(receiver, size, items_max, room):
    """Items beyond the limit are dropped and counted, with one line in the log."""
    receiver.gate.clear()
    queue = opened(receiver, size, items_max)
    queue.put(0)
    await until(receiver.busy.is_set)
    with structlog.testing.capture_logs() as logs:
        for number in range(room + 7):
            queue.put(number)
    assert (queue.pending, queue.dropped) == (room, 7)
    assert [each["event"] for each in logs] == ["telemetry queue is full, items dropped"]
    receiver.gate.set()
    await queue.close(SECONDS)
    assert queue.exported == room + 1


async def test_the_end_is_bounded(receiver):
    """A receiver that does not reply does not keep edgesim from ending; the rest is counted."""
    receiver.gate.clear()
    queue = opened(receiver)
    queue.put(0)
    await until(receiver.busy.is_set)
    for number in range(5):
        queue.put(number)
    with structlog.testing.capture_logs() as logs:
        await queue.close(0.05)
    assert (queue.failed, queue.dropped) == (1, 5)
    assert {"telemetry not exported before the end"} <= {each["event"] for each in logs}


async def test_the_end_does_not_wait_for_a_receiver_that_is_down(receiver):
    """After a failure the end gives up at once what is left."""
    receiver.problem = "connection refused"
    queue = opened(receiver)
    queue.put(0)
    await until(lambda: queue.failed == 1)
    receiver.busy.clear()
    receiver.gate.clear()
    queue.put(1)
    await until(receiver.busy.is_set)
    queue.put(2)
    with anyio.fail_after(SECONDS):
        await queue.close(100 * SECONDS)
    assert (queue.failed, queue.dropped) == (2, 1)


async def test_an_outage_is_one_warning_and_its_end_one_line(receiver):
    """Failed batches are counted; the log has the first failure and the recovery."""
    queue = opened(receiver)
    receiver.problem = "connection refused"
    with structlog.testing.capture_logs() as logs:
        for number in range(3):
            queue.put(number)
            await until(lambda number=number: queue.failed == number + 1)
        receiver.problem = ""
        queue.put(3)
        await until(lambda: queue.exported == 1)
        await queue.close(SECONDS)
    assert [each["event"] for each in logs] == [
        "telemetry cannot be exported, will try again",
        "telemetry is exported again",
    ]
    assert logs[0]["error"] == "connection refused"

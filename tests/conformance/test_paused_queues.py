"""Pause and resume of a queue's delivery, on every driver; time is virtual."""

from functools import partial

import pytest

from edgesim.config.queues import ConsumerConfig
from edgesim.drivers import known
from edgesim.errors import RunError
from edgesim.queues.consumer import Consumer
from edgesim.queues.paused import FILE, PausedQueues
from edgesim.queues.producer import Queue
from edgesim.replay.virtual_loop import VirtualLoop
from tests.queues_world import VirtualClock, Worker, consuming, open_in_virtual_time, url_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """All tests here run in virtual time."""
    return "asyncio", {"loop_factory": partial(VirtualLoop, 0, 0.0)}


@pytest.fixture
def clock():
    """The clock shared by queue, consumer and Worker."""
    return VirtualClock()


@pytest.fixture(params=known("queues"))
async def queue(request, tmp_path, clock):
    """An empty queue of each driver."""
    (tmp_path / "state").mkdir()
    async with open_in_virtual_time(url_of(request, tmp_path), clock) as driver:
        yield Queue("q", driver, clock, paused=PausedQueues(tmp_path / "state"))


async def test_a_paused_queue_delivers_nothing(queue, clock):
    """Messages sent during the pause are stored, and delivered after the resume, in order."""
    worker = Worker(clock)
    settings = ConsumerConfig("q", max_batch_size=2, max_batch_timeout=1)
    async with consuming(Consumer(queue, settings, worker, clock)):
        queue.pause()
        for text in (b"1", b"2", b"3"):
            await queue.send(text, "text")
        await clock.advance(3_600)
        assert worker.bodies == []
        assert (await queue.depth()).messages == 3
        queue.resume()
        await clock.advance(10)
        assert worker.bodies == [["1", "2"], ["3"]]
        assert [message.attempts for message in worker.messages] == [1, 1, 1]


async def test_a_forming_batch_is_given_back(queue, clock):
    """Messages leased for a batch that is not yet due are not delivered; no attempt is counted."""
    worker = Worker(clock)
    settings = ConsumerConfig("q", max_batch_size=3, max_batch_timeout=30)
    consumer = Consumer(queue, settings, worker, clock)
    async with consuming(consumer):
        await queue.send(b"1", "text")
        await clock.advance(10)
        queue.pause()
        await clock.advance(3_600)
        assert (worker.bodies, consumer.in_flight) == ([], 0)
        queue.resume()
        await clock.advance(60)
        assert worker.bodies == [["1"]]
        assert [message.attempts for message in worker.messages] == [1]


async def test_a_running_batch_is_settled(queue, clock):
    """A batch that the Worker has when the queue is paused ends as usual."""
    worker = Worker(clock, takes=5)
    settings = ConsumerConfig("q", max_batch_size=1, max_batch_timeout=0)
    async with consuming(Consumer(queue, settings, worker, clock)):
        await queue.send(b"1", "text")
        await queue.send(b"2", "text")
        await clock.advance(1)
        queue.pause()
        await clock.advance(60)
        assert worker.bodies == [["1"]]
        assert (await queue.depth()).messages == 1


def test_pauses_are_kept(tmp_path):
    """A paused queue is paused after a restart; others are not."""
    PausedQueues(tmp_path).add("a")
    again = PausedQueues(tmp_path)
    assert "a" in again
    assert "b" not in again
    again.discard("a")
    assert "a" not in PausedQueues(tmp_path)


def test_a_damaged_file_is_one_line(tmp_path):
    """A file that cannot be read is an error with its name and the cure."""
    (tmp_path / FILE).write_text("{broken")
    with pytest.raises(RunError, match=f"{FILE}: cannot be read.*remove the file"):
        PausedQueues(tmp_path)

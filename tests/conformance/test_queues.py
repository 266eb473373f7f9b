"""The contract of every queue driver, of a Queue on it and of its consumers; time is virtual.

Each test names its source: a page of https://developers.cloudflare.com/queues/, another source of
the platform's, or "edgesim" for edgesim's own contract.
"""

import math
from functools import partial
from itertools import cycle, pairwise

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from edgesim.config.queues import ConsumerConfig, PullConfig, QueueConfig
from edgesim.drivers import known, opener
from edgesim.errors import ConfigError, PlatformError, RunError, UsageError
from edgesim.model import BatchResult, Retry
from edgesim.queues import producer
from edgesim.queues.consumer import AUTO_CONCURRENCY_MAX, Consumer
from edgesim.queues.driver import NewMessage
from edgesim.queues.producer import MessageSendRequest, Queue
from edgesim.queues.pull import PullConsumer
from edgesim.replay.virtual_loop import VirtualLoop, run_virtual
from edgesim.tracing import TraceContext, using
from edgesim.urls import scheme_of
from tests.queues_world import (
    Unreliable,
    VirtualClock,
    Worker,
    consuming,
    open_in_virtual_time,
    retry_all,
    settled,
    texts,
    url_of,
)

pytestmark = pytest.mark.anyio

DAY = 86_400


@pytest.fixture
def anyio_backend():
    """All tests here run in virtual time."""
    return "asyncio", {"loop_factory": partial(VirtualLoop, 0, 0.0)}


@pytest.fixture
def clock():
    """The clock shared by queues, consumers and workers."""
    return VirtualClock()


@pytest.fixture(params=known("queues"))
def url(request, tmp_path):
    """The URL of a new store of each driver; see url_of."""
    return url_of(request, tmp_path)


@pytest.fixture
async def driver(url, clock):
    """The open store."""
    async with open_in_virtual_time(url, clock) as driver:
        yield driver


@pytest.fixture
def queue(driver, clock):
    """A queue with the platform's defaults."""
    return Queue("ingest", driver, clock)


@pytest.fixture
def dlq(driver, clock):
    """Another queue in the same store."""
    return Queue("ingest-dlq", driver, clock)


@pytest.fixture
def consumer_of(clock):
    """A factory of consumers with the given settings on the given queue."""

    def make(queue, deliver, dead_letter=None, **values):
        name = dead_letter and dead_letter.name
        settings = ConsumerConfig(queue.name, dead_letter_queue=name, **values)
        return Consumer(queue, settings, deliver, clock, dead_letter)

    return make


# --- drivers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["memory:name", "sqlite:"])
async def test_url_with_a_wrong_path_is_refused(bad, clock):
    """A URL with a path that the driver cannot use, or without a path it needs, is a ConfigError.

    Source: edgesim, the contract of a store.
    """
    with pytest.raises(ConfigError, match="path"):
        async with opener("queues", bad)(bad, clock):
            pass


async def test_lease_gives_the_oldest_visible_first(driver, clock):
    """Messages are leased in the order they became visible; ties go to the first one sent.

    Source: edgesim, the contract of a store.
    """
    now = clock.now()
    await driver.send(
        "q",
        [
            NewMessage("later", b"", "text", 1, now - 1),
            NewMessage("first", b"", "text", 9, now - 2),
            NewMessage("second", b"", "text", 5, now - 2),
            NewMessage("invisible", b"", "text", 0, now + 1),
        ],
    )
    assert [m.id for m in await driver.lease("q", 2, now, now + 9)] == ["first", "second"]
    assert [m.id for m in await driver.lease("q", 9, now, now + 9)] == ["later"]


async def test_lease_ends_by_itself(driver, clock):
    """A message whose lease expired is visible again, with one more attempt.

    Source: edgesim, the contract of a store.
    """
    now = clock.now()
    await driver.send("q", [NewMessage("a", b"", "text", 1, now)])
    assert [m.attempts for m in await driver.lease("q", 1, now, now + 10)] == [1]
    assert await driver.lease("q", 1, now + 9, now + 99) == []
    assert [m.attempts for m in await driver.lease("q", 1, now + 10, now + 99)] == [2]


async def test_leases_of_another_queue_are_nothing_to_do(driver, queue, dlq):
    """Acking, releasing or moving a message that the queue does not hold changes no queue.

    Source: edgesim, the contract of a store.
    """
    await queue.send(b"kept", "text")
    (message,) = await queue.lease(1, 60)
    assert await dlq.ack([message.lease_id, "nobody"]) == 0
    assert await dlq.release([message.lease_id], 0) == 0
    assert await dlq.move([message.lease_id], Queue("third", driver, queue._clock)) == 0
    assert [m.id for m in await queue.peek(9)] == [message.id]
    assert await queue.lease(9, 60) == []
    assert await driver.names() == ["ingest"]


async def test_lease_can_be_given_back_once(queue):
    """A lease cannot settle a message that was acked, moved, or released and leased again.

    Source: edgesim, the contract of a store.
    """
    await queue.send(b"1")
    (first,) = await queue.lease(1, 60)
    assert await queue.release([first.lease_id], 0) == 1
    (second,) = await queue.lease(1, 60)
    assert first.lease_id != second.lease_id
    await queue.ack([first.lease_id])
    assert (await queue.metrics()).backlog_count == 1
    assert await queue.ack([second.lease_id]) == 1
    assert (await queue.metrics()).backlog_count == 0


async def test_leases_over_all_processes_keep_to_their_limit(driver, clock):
    """The number of messages leased at a time never exceeds the limit, over all calls.

    Source: edgesim, the contract of a store.
    """
    now = clock.now()
    await driver.send("q", [NewMessage(f"{n:032x}", b"", "text", 1, now) for n in range(9)])
    first = await driver.lease("q", 3, now, now + 60, 5)
    second = await driver.lease("q", 3, now, now + 60, 5)
    assert (len(first), len(second)) == (3, 2)
    assert await driver.lease("q", 3, now, now + 60, 5) == []
    await driver.ack("q", [first[0].lease_id])
    assert len(await driver.lease("q", 3, now, now + 60, 5)) == 1


async def test_send_of_a_known_id_keeps_none_of_the_batch(driver, clock):
    """A batch that contains an id which is already stored is refused whole.

    Source: edgesim, the contract of a store.
    """
    now = clock.now()
    await driver.send("q", [NewMessage("a", b"1", "text", 1, now)])
    with pytest.raises(RunError):
        await driver.send(
            "q", [NewMessage("b", b"2", "text", 1, now), NewMessage("a", b"3", "text", 1, now)]
        )
    assert (await driver.depth("q")).messages == 1
    assert [m.id for m in await driver.peek("q", 9)] == ["a"]


async def test_names_are_of_queues_that_hold_a_message(driver, queue, dlq):
    """A queue is listed while it holds a message, also a leased one.

    Source: edgesim, the contract of a store.
    """
    await queue.send(b"1", "text")
    await dlq.send(b"1", "text")
    await queue.lease(1, 60)
    await dlq.purge()
    assert await driver.names() == ["ingest"]


async def test_a_dropped_queue_is_gone_and_may_begin_anew(driver, queue, clock):
    """Dropping removes all messages, leased ones too; dropping an unknown queue has no effect.

    Source: edgesim, the contract of a store.
    """
    await queue.send_batch(texts("1", "2"))
    await queue.lease(1, 60)
    await driver.drop("ingest")
    await driver.drop("never-used")
    assert await driver.names() == []
    await queue.send(b"3", "text")
    assert [m.body for m in await queue.lease(9, 60)] == [b"3"]


# --- producers ----------------------------------------------------------------------------------


async def test_sent_message_is_kept_whole(queue, clock):
    """Id, body, content type and time of sending are returned; the first delivery is attempt 1.

    Source: JavaScript APIs, producer.
    """
    await clock.advance(7.25)
    await queue.send(b"\x00\xff", "bytes")
    (message,) = await queue.lease(10, 60)
    assert (message.body, message.content_type, message.attempts) == (b"\x00\xff", "bytes", 1)
    assert message.timestamp_ms == 1_800_000_007_250
    assert len(message.id) == 32
    assert int(message.id, 16) > 0


async def test_the_trace_context_of_the_producer_stays_with_a_message(driver, queue, dlq, clock):
    """edgesim: through a retry and a move; a message from outside of any trace has none."""
    context = TraceContext((1 << 128) - 1, (1 << 64) - 1)
    with using(context):
        await queue.send(b'"traced"')
    await queue.send(b'"untraced"')

    async def leased(source):
        found = await source.lease(10, 60)
        return {message.body: message for message in found}

    first = await leased(queue)
    assert first[b'"traced"'].trace == context.traceparent()
    assert first[b'"untraced"'].trace == ""
    await queue.release([each.lease_id for each in first.values()], 0)
    again = await leased(queue)
    assert again[b'"traced"'].trace == context.traceparent()
    await queue.move([each.lease_id for each in again.values()], dlq)
    moved = await leased(dlq)
    assert {body: each.trace for body, each in moved.items()} == {
        b'"traced"': context.traceparent(),
        b'"untraced"': "",
    }


async def test_send_tells_the_backlog(queue, clock):
    """Metrics after a send count the new messages and report the oldest.

    Source: Changelog 2026-04-28, queue metrics.
    """
    first = await queue.send(b'"abc"')
    await clock.advance(5)
    second = await queue.send_batch(texts("12", "3456"))
    assert (first.backlog_count, first.backlog_bytes) == (1, 5)
    assert (second.backlog_count, second.backlog_bytes) == (3, 11)
    assert second.oldest_message_timestamp_ms == 1_800_000_000_000
    assert await queue.metrics() == second


async def test_metrics_of_an_empty_queue(queue):
    """The backlog is 0, and there is no oldest message.

    Source: Changelog 2026-04-28, queue metrics.
    """
    assert await queue.metrics() == producer.Metrics(0, 0, None)


async def test_message_size_limit(queue):
    """127,900 bytes and 100 of metadata fit into a message; one byte more does not.

    Source: Limits.
    """
    await queue.send(b"x" * 127_900, "bytes")
    with pytest.raises(PlatformError) as refused:
        await queue.send(b"x" * 127_901, "bytes")
    text = "message length of 128001 bytes exceeds limit of 128000 bytes (10204)"
    assert (refused.value.name, refused.value.message) == ("Error", text)
    assert (await queue.metrics()).backlog_count == 1


async def test_batch_count_limit(queue):
    """A batch holds 100 messages; none of a larger batch is stored.

    Source: Limits.
    """
    await queue.send_batch(texts(*"x" * 100))
    with pytest.raises(PlatformError) as refused:
        await queue.send_batch(texts(*"x" * 101))
    assert refused.value.message == "batch message count of 101 exceeds limit of 100 (10206)"
    assert (await queue.metrics()).backlog_count == 100


async def test_batch_size_limit(queue):
    """A batch holds 256,000 bytes, metadata included.

    Source: Limits.
    """
    await queue.send_batch([MessageSendRequest(b"x" * 63_900, "bytes")] * 4)
    with pytest.raises(PlatformError) as refused:
        await queue.send_batch([MessageSendRequest(b"x" * 63_901, "bytes")] * 4)
    text = "batch size of 256004 bytes exceeds limit of 256000 bytes (10205)"
    assert refused.value.message == text


async def test_large_message_in_a_batch_refuses_the_batch(queue):
    """One message over the limit: the whole batch is refused.

    Source: Limits.
    """
    with pytest.raises(PlatformError) as refused:
        await queue.send_batch([*texts("a"), MessageSendRequest(b"x" * 127_901, "bytes")])
    assert refused.value.message == (
        "message in batch has length 128001 bytes which exceeds single message size limit of "
        "128000 bytes (10204)"
    )
    assert (await queue.metrics()).backlog_count == 0


async def test_empty_batch_is_a_type_error(queue):
    """A batch needs at least one message.

    Source: workerd queue.c++.
    """
    with pytest.raises(PlatformError) as refused:
        await queue.send_batch([])
    text = "sendBatch() requires at least one message"
    assert (refused.value.name, refused.value.message) == ("TypeError", text)


async def test_unknown_content_type_is_a_type_error(queue):
    """The error names the unknown content type.

    Source: workerd queue.c++.
    """
    with pytest.raises(PlatformError) as refused:
        await queue.send(b"<a/>", "xml")
    text = "Unsupported queue message content type: xml"
    assert (refused.value.name, refused.value.message) == ("TypeError", text)


async def test_content_type_is_known_in_any_case(queue):
    """Content types are case-insensitive, as on the platform.

    Source: workerd queue.c++.
    """
    await queue.send(b"{}", "JSON")
    assert [m.content_type for m in await queue.peek(1)] == ["json"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{oops", "json"),
        (b"NaN", "json"),
        (b"\xff", "text"),
        (b"\xc1", "v8"),
        (b"[" * 9999, "json"),
    ],
)
async def test_body_that_contradicts_its_content_type_is_refused(queue, body, content_type):
    """A body that no consumer could decode is refused by the send, with its whole batch.

    Source: JavaScript APIs, producer.
    """
    with pytest.raises(PlatformError, match=r"is not valid .*\(10208\)$"):
        await queue.send_batch([*texts("good"), MessageSendRequest(body, content_type)])
    assert (await queue.metrics()).backlog_count == 0


@pytest.mark.parametrize("delay", [-1, 86_401, math.nan, math.inf])
async def test_delay_outside_a_day_is_refused(queue, delay):
    """A message's delay and a batch's delay have different errors.

    Source: Limits.
    """
    with pytest.raises(PlatformError, match=r"^message delay .*\(10203\)$"):
        await queue.send(b"1", delay_seconds=delay)
    with pytest.raises(PlatformError, match=r"^batch delay .*\(10202\)$"):
        await queue.send_batch(texts("1"), delay_seconds=delay)
    assert (await queue.metrics()).backlog_count == 0


async def test_delay_of_message_then_batch_then_queue(driver, clock):
    """A message's delay overrides its batch's, which overrides the queue's; 0 overrides too.

    Source: Batching, Retries and Delays.
    """
    queue = Queue("slow", driver, clock, QueueConfig(delivery_delay=30))
    await queue.send(b"queue", "text")
    await queue.send(b"message", "text", delay_seconds=86_400)
    await queue.send_batch(
        [MessageSendRequest(b"zero", "text", 0), MessageSendRequest(b"batch", "text")], 10
    )
    seen = []
    for _ in range(4):
        seen += [(m.body, round(anyio.current_time())) for m in await queue.lease(9, 2 * DAY)]
        if (soon := (await queue.depth()).next_visible_at) is not None:
            await clock.advance(soon - clock.now())
    assert seen == [(b"zero", 0), (b"batch", 10), (b"queue", 30), (b"message", 86_400)]


async def test_backlog_limit(queue, monkeypatch):
    """A send that would exceed the queue's storage limit is refused; the one before it is not.

    Source: Limits.
    """
    monkeypatch.setattr(producer, "BACKLOG_BYTES_MAX", 10)
    await queue.send(b"x" * 10, "bytes")
    with pytest.raises(PlatformError, match=r"^Queue storage limit exceeded \(10251\)$"):
        await queue.send(b"x", "bytes")


async def test_failed_look_at_the_backlog_fails_the_send_before_it_is_durable(driver, clock):
    """If the depth cannot be read nothing is stored, so that a repeated send makes no duplicate.

    Source: edgesim, durability.
    """
    store = Unreliable(driver)
    queue = Queue("ingest", store, clock)
    store.broken = {"depth"}
    with pytest.raises(RunError):
        await queue.send(b"1")
    assert (await driver.depth("ingest")).messages == 0


# --- operators ----------------------------------------------------------------------------------


async def test_peek_shows_the_oldest_and_touches_nothing(queue, clock):
    """Delayed and leased messages are listed too, oldest first; their attempts do not change.

    Source: edgesim, operations.
    """
    await queue.send(b"delayed", "text", delay_seconds=60)
    await clock.advance(1)
    await queue.send(b"leased", "text")
    await clock.advance(1)
    await queue.lease(1, 60)
    await queue.send(b"new", "text")
    for _ in range(2):
        shown = [(m.body, m.attempts) for m in await queue.peek(10)]
        assert shown == [(b"delayed", 0), (b"leased", 1), (b"new", 0)]
    assert [m.body for m in await queue.peek(1)] == [b"delayed"]


async def test_purge_removes_everything(queue, dlq):
    """Purge removes and counts delayed and leased messages too, in this queue only.

    Source: Configuration, pause and purge.
    """
    await queue.send_batch(texts("a", "b"))
    await queue.send(b"c", "text", delay_seconds=60)
    await dlq.send(b"other", "text")
    await queue.lease(1, 60)
    assert await queue.purge() == 3
    assert await queue.purge() == 0
    assert await queue.metrics() == producer.Metrics(0, 0, None)
    assert (await dlq.metrics()).backlog_count == 1


async def test_redrive_moves_everything_and_starts_it_anew(queue, dlq, clock):
    """Visible, delayed and leased messages move; id, body and time stay, attempts restart.

    Source: edgesim, operations.
    """
    await dlq.send_batch(texts("a", "b"))
    await dlq.send(b"c", "text", delay_seconds=3600)
    await dlq.lease(1, 3600)
    before = await dlq.peek(9)
    await clock.advance(60)
    assert await dlq.redrive(queue) == 3
    assert await dlq.redrive(queue) == 0
    assert await dlq.metrics() == producer.Metrics(0, 0, None)
    assert [(m.id, m.body, m.timestamp_ms, 1) for m in before] == [
        (m.id, m.body, m.timestamp_ms, m.attempts) for m in await queue.lease(9, 60)
    ]


async def test_redrive_goes_on_past_one_page(queue, dlq):
    """All messages move, also more than one page of them.

    Source: edgesim, operations.
    """
    for _ in range(11):
        await dlq.send_batch(texts(*"x" * 100))
    assert await dlq.redrive(queue) == 1_100
    assert (await queue.metrics()).backlog_count == 1_100


async def test_redrive_to_itself_is_refused(queue):
    """A queue cannot be redriven to itself.

    Source: edgesim, operations.
    """
    with pytest.raises(UsageError, match="ingest cannot be redriven to itself"):
        await queue.redrive(queue)


async def test_messages_expire_after_their_retention(driver, clock):
    """Messages older than the retention are removed, counted and logged; younger ones stay.

    Source: Configuration, message retention.
    """
    queue = Queue("short", driver, clock, QueueConfig(retention_seconds=60))
    await queue.send_batch(texts("old", "old"))
    await clock.advance(59)
    await queue.send(b"young", "text")
    with capture_logs() as logs:
        await clock.advance(2)
        assert [m.body for m in await queue.peek(9)] == [b"young"]
    assert queue.expired == 2
    assert [(entry["queue"], entry["messages"]) for entry in logs] == [("short", 2)]


async def test_retention_is_looked_after_once_a_minute(driver, clock):
    """A busy queue searches for expired messages at most once a minute.

    Source: edgesim, operations.
    """
    store = Unreliable(driver)
    queue = Queue("busy", store, clock)
    for _ in range(119):
        await clock.advance(1)
        await queue.send(b"1")
    assert store.calls.count("expire") == 2


async def test_leased_messages_do_not_expire(driver, clock):
    """A message in delivery does not expire before it is released.

    Source: Configuration, message retention.
    """
    queue = Queue("short", driver, clock, QueueConfig(retention_seconds=60))
    await queue.send(b"1")
    (message,) = await queue.lease(1, 9999)
    await clock.advance(600)
    assert (await queue.metrics()).backlog_count == 1
    await queue.release([message.lease_id], 0)
    await clock.advance(61)
    assert (await queue.metrics()).backlog_count == 0
    assert queue.expired == 1


# --- consumers: batching ------------------------------------------------------------------------


async def test_full_batch_is_handed_over_at_once(queue, clock, consumer_of):
    """A full batch does not wait for the timeout, and keeps the order of sending.

    Source: Batching, Retries and Delays.
    """
    worker = Worker(clock)
    async with consuming(consumer_of(queue, worker, max_batch_size=3)):
        await queue.send_batch(texts("a", "b", "c"))
        await settled()
        assert worker.bodies == [["a", "b", "c"]]
        assert worker.times == [0]


async def test_timeout_counts_from_the_first_message(queue, clock, consumer_of):
    """A batch that does not fill is delivered max_batch_timeout after its first message.

    Source: Batching, Retries and Delays.
    """
    worker = Worker(clock)
    async with consuming(consumer_of(queue, worker, max_batch_timeout=5)):
        await clock.advance(100)
        await queue.send(b"a", "text")
        await clock.advance(3)
        await queue.send(b"b", "text")
        await clock.advance(1.5)
        assert worker.batches == []
        await clock.advance(1)
        await queue.send(b"c", "text")
        await clock.advance(20)
    assert worker.bodies == [["a", "b"], ["c"]]
    assert worker.times == [105, 110.5]


async def test_zero_timeout_delivers_what_is_there(queue, clock, consumer_of):
    """With a timeout of 0 a message is delivered at once.

    Source: Batching, Retries and Delays.
    """
    worker = Worker(clock)
    async with consuming(consumer_of(queue, worker, max_batch_timeout=0)):
        await queue.send(b"a", "text")
        await settled()
        assert worker.bodies == [["a"]]


async def test_a_consumer_at_rest_begins_no_batch(queue, clock, consumer_of):
    """At shutdown a batch in progress is settled, and messages that arrive later stay.

    Source: edgesim.
    """
    worker = Worker(clock, takes=10)
    async with consuming(consumer_of(queue, worker, max_batch_timeout=0)) as consumer:
        await queue.send(b"1")
        await settled()
        assert consumer.in_flight == 1
        consumer.rest()
        await queue.send(b"2")
        await clock.advance(60)
        assert consumer.in_flight == 0
    assert worker.bodies == [["1"]]
    assert (await queue.depth()).messages == 1


async def test_a_claim_by_the_only_process_is_granted(driver):
    """The only process is granted every claim; claims with different names are independent.

    Source: edgesim.
    """
    assert await driver.claim("worker * * * * * 1767225600000")
    assert await driver.claim("worker * * * * * 1767225660000")


async def test_empty_queue_never_delivers(queue, clock, consumer_of):
    """Without messages there is no invocation, after any time.

    Source: Batching, Retries and Delays.
    """
    worker = Worker(clock)
    async with consuming(consumer_of(queue, worker, max_batch_timeout=0)):
        await clock.advance(DAY)
    assert worker.batches == []


async def test_old_backlog_is_delivered_without_delay(queue, clock, consumer_of):
    """Messages older than the timeout are delivered as soon as a consumer starts.

    Source: Batching, Retries and Delays.
    """
    await queue.send_batch(texts("a", "b"))
    await clock.advance(60)
    worker = Worker(clock)
    async with consuming(consumer_of(queue, worker)):
        assert worker.bodies == [["a", "b"]]


async def test_delayed_message_comes_at_its_time(queue, clock, consumer_of):
    """A delayed message becomes visible after its delay; the batch's timeout begins then.

    Source: Batching, Retries and Delays.
    """
    worker = Worker(clock)
    async with consuming(consumer_of(queue, worker, max_batch_timeout=5)):
        await queue.send(b"1", delay_seconds=600)
        await clock.advance(700)
    assert worker.times == [605]


async def test_delayed_messages_do_not_fill_a_batch(queue, clock, consumer_of):
    """Messages that are not visible yet neither fill a batch nor are part of it.

    Source: Batching, Retries and Delays.
    """
    worker = Worker(clock)
    async with consuming(consumer_of(queue, worker, max_batch_size=3, max_batch_timeout=5)):
        await queue.send_batch(texts("x", "y", "z"), delay_seconds=60)
        await queue.send(b"a", "text")
        await clock.advance(4.9)
        assert worker.batches == []
        await clock.advance(60)
    assert worker.bodies == [["a"], ["x", "y", "z"]]
    assert worker.times == [5, 60]


async def test_batch_fills_with_what_becomes_visible(queue, clock, consumer_of):
    """A batch that waits beside delayed messages is delivered as soon as one of them fills it.

    Source: Batching, Retries and Delays.
    """
    worker = Worker(clock)
    async with consuming(consumer_of(queue, worker, max_batch_size=2, max_batch_timeout=5)):
        await queue.send(b"b", "text", delay_seconds=2)
        await queue.send(b"c", "text", delay_seconds=60)
        await queue.send(b"a", "text")
        await clock.advance(10)
    assert worker.bodies == [["a", "b"]]
    assert worker.times == [2]


async def test_batch_in_flight_does_not_fill_the_next(queue, clock, consumer_of):
    """Messages in delivery do not count for the batch that forms meanwhile.

    Source: Batching, Retries and Delays.
    """
    worker = Worker(clock, takes=60)
    options = {"max_batch_size": 2, "max_concurrency": 2}
    async with consuming(consumer_of(queue, worker, **options)) as consumer:
        await queue.send_batch(texts("a", "b"))
        await settled()
        await queue.send(b"c", "text")
        await clock.advance(4)
        assert consumer.in_flight == 2  # not even leased: a lease would cost an attempt on reload


async def test_waiting_for_a_batch_costs_no_attempt(queue, clock, consumer_of):
    """A consumer that is replaced while its batch fills has cost no delivery attempt.

    Source: edgesim, durability.
    """
    await queue.send(b"1")
    async with consuming(consumer_of(queue, Worker(clock))):
        await clock.advance(3)
    worker = Worker(clock)
    async with consuming(consumer_of(queue, worker)):
        await clock.advance(5)
    assert [m.attempts for m in worker.messages] == [1]


async def test_batch_held_beside_delayed_messages_is_given_back(queue, clock, consumer_of):
    """A consumer that is cancelled while it holds part of a batch releases it at once.

    Source: Batching, Retries and Delays.
    """
    await queue.send_batch(texts("x", "y"), delay_seconds=60)
    await queue.send(b"a", "text")
    async with consuming(consumer_of(queue, Worker(clock), max_batch_size=2)) as consumer:
        await clock.advance(1)
        assert consumer.in_flight == 1
    assert consumer.in_flight == 0
    assert [m.body for m in await queue.lease(9, 60)] == [b"a"]


async def test_released_message_wakes_the_consumer(queue, clock, consumer_of):
    """A message that another consumer releases is delivered at once, not at the next poll.

    Source: Batching, Retries and Delays.
    """
    await queue.send(b"1")
    (message,) = await queue.lease(1, 3600)
    worker = Worker(clock)
    async with consuming(consumer_of(queue, worker, max_batch_timeout=0)):
        await clock.advance(600)
        assert worker.batches == []
        await queue.release([message.lease_id], 0)
        await settled()
        assert [m.attempts for m in worker.messages] == [2]


async def test_clock_set_forward_is_noticed(queue, clock, consumer_of):
    """A delay ends by the wall clock, also if that is set while the consumer sleeps.

    Source: edgesim, durability.
    """
    worker = Worker(clock)
    async with consuming(consumer_of(queue, worker, max_batch_timeout=0)):
        await queue.send(b"1", delay_seconds=DAY)
        await clock.advance(10)
        clock.skew = 2 * DAY
        await clock.advance(60)
        assert len(worker.batches) == 1


# --- consumers: settlement ----------------------------------------------------------------------


async def test_acked_messages_are_gone(queue, clock, consumer_of):
    """Acked messages are removed and counted as delivered.

    Source: Batching, Retries and Delays.
    """
    worker = Worker(clock)
    async with consuming(consumer_of(queue, worker, max_batch_size=2)) as consumer:
        await queue.send_batch(texts("a", "b"))
        await clock.advance(DAY)
        assert (consumer.delivered, consumer.in_flight) == (2, 0)
    assert len(worker.batches) == 1
    assert await queue.metrics() == producer.Metrics(0, 0, None)


async def test_retry_comes_back_after_its_own_delay(queue, clock, consumer_of):
    """A retried message returns with one more attempt, after its own delay or else retry_delay.

    Source: Batching, Retries and Delays.
    """

    def decide(batch):
        late, usual, done = (m.id for m in batch)
        worker.decide = Worker(clock).decide
        return BatchResult(acks=[done], retries=[Retry(late, 100), Retry(usual)])

    worker = Worker(clock, decide)
    options = {"max_batch_size": 3, "max_batch_timeout": 0, "retry_delay": 10}
    await queue.send_batch(texts("late", "usual", "done"))
    async with consuming(consumer_of(queue, worker, **options)) as consumer:
        await clock.advance(DAY)
        assert (consumer.delivered, consumer.retried) == (3, 2)
    assert worker.bodies == [["late", "usual", "done"], ["usual"], ["late"]]
    assert worker.times == [0, 10, 100]
    assert [m.attempts for m in worker.messages] == [1, 1, 1, 2, 2]


async def test_retry_delay_of_zero_overrides_the_consumers(queue, clock, consumer_of):
    """A retry delay of 0 redelivers the message at once although the consumer has a delay.

    Source: Batching, Retries and Delays.
    """
    worker = Worker(clock, partial(retry_all, delay_seconds=0))
    options = {"max_batch_timeout": 0, "retry_delay": 600, "max_retries": 2}
    await queue.send(b"1")
    async with consuming(consumer_of(queue, worker, **options)):
        await clock.advance(1)
    assert len(worker.batches) == 3


async def test_failed_delivery_retries_the_whole_batch(queue, clock, consumer_of):
    """An exception from the delivery is logged, and every message is retried.

    Source: Batching, Retries and Delays.
    """

    def fail(batch):
        worker.decide = Worker(clock).decide
        raise OSError("the isolate is gone")

    worker = Worker(clock, fail)
    with capture_logs() as logs:
        async with consuming(consumer_of(queue, worker, max_batch_size=2)) as consumer:
            await queue.send_batch(texts("a", "b"))
            await clock.advance(10)
            assert (consumer.delivered, consumer.retried) == (2, 2)
    assert worker.bodies == [["a", "b"], ["a", "b"]]
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("error", "queue batch not delivered")
    ]


async def test_a_lease_that_does_not_count(queue, clock):
    """A release without counting adds no attempt to the message, and ends the lease.

    Source: edgesim; a failure of the platform is no attempt of the message.
    """
    await queue.send_batch(texts("a", "b"))
    first = await queue.lease(2, 60)
    assert await queue.release([m.lease_id for m in first], 0, False) == 2
    assert [m.attempts for m in await queue.peek(2)] == [0, 0]
    again = await queue.lease(2, 60)
    assert [m.attempts for m in again] == [1, 1]
    await queue.ack([m.lease_id for m in first])  # expired leases: no effect
    assert (await queue.depth()).messages == 2
    await queue.release([m.lease_id for m in again], 30)
    await clock.advance(31)
    once_more = await queue.lease(2, 60)
    assert [m.attempts for m in once_more] == [2, 2]
    await queue.release([m.lease_id for m in once_more], 10, False)
    await clock.advance(11)
    assert [m.attempts for m in await queue.lease(2, 60)] == [2, 2]


def not_delivered(batch):
    """Return the result of a batch that the platform could not deliver."""
    retries = [Retry(message.id) for message in batch]
    return BatchResult(retries=retries, failed=True, not_delivered="no isolate")


async def test_failures_of_the_platform_are_no_attempts(queue, dlq, clock, consumer_of):
    """Platform failures never exhaust a message; delivery is retried with backoff, logged once.

    Source: edgesim; a failure of the platform is no attempt of the message.
    """
    worker = Worker(clock, not_delivered)
    with capture_logs() as logs:
        options = {"max_batch_size": 2, "max_batch_timeout": 0, "max_retries": 1}
        async with consuming(consumer_of(queue, worker, dlq, **options)) as consumer:
            await queue.send_batch(texts("a", "b"))
            await clock.advance(200)
            failed = len(worker.batches)
            gaps = [b - a for a, b in pairwise(worker.times)]
            assert gaps[0] >= 0.1
            assert gaps[:6] == sorted(gaps[:6])
            assert max(gaps) < 12
            assert 15 < failed < 40
            worker.decide = Worker(clock).decide
            await clock.advance(12)
            assert (consumer.delivered, consumer.dead, consumer.lost) == (2, 0, 0)
    assert {m.attempts for m in worker.messages} == {1}
    assert (await dlq.depth()).messages == 0
    assert [entry["event"] for entry in logs] == ["queue batch not delivered"]
    assert (logs[0]["queue"], logs[0]["error"]) == ("ingest", "no isolate")


async def test_a_pause_after_a_failure_of_the_platform_is_for_all_batches(
    queue, clock, consumer_of
):
    """During a platform failure the backoff applies to all batches of a long backlog.

    Source: edgesim; a failure of the platform is no attempt of the message.
    """
    worker = Worker(clock, not_delivered)
    for _ in range(4):
        await queue.send_batch(texts(*"abcdefghij"))
    options = {"max_batch_size": 1, "max_batch_timeout": 0, "max_concurrency": 2}
    async with consuming(consumer_of(queue, worker, **options)):
        await clock.advance(60)
        assert len(worker.batches) < 60
        worker.decide = Worker(clock).decide
        await clock.advance(30)
    assert (await queue.depth()).messages == 0


async def test_attempts_of_the_handler_count_between_failures_of_the_platform(
    queue, dlq, clock, consumer_of
):
    """Failures of the handler count as attempts, and after max_retries the message is dead.

    Source: edgesim; a failure of the platform is no attempt of the message.
    """
    decisions = cycle([not_delivered, not_delivered, retry_all])

    def decide(batch):
        return next(decisions)(batch)

    worker = Worker(clock, decide)
    await queue.send(b"1")
    options = {"max_batch_timeout": 0, "max_retries": 2}
    async with consuming(consumer_of(queue, worker, dlq, **options)) as consumer:
        for _ in range(60):  # a store that is slow to reply delays deliveries further
            await clock.advance(10)
            if consumer.dead:
                break
        assert consumer.dead == 1
    assert [m.attempts for m in worker.messages] == [1, 1, 1, 2, 2, 2, 3, 3, 3]


async def test_message_without_a_decision_is_retried(queue, clock, consumer_of):
    """A message that is missing from the result is retried.

    Source: Batching, Retries and Delays.
    """
    worker = Worker(clock, lambda batch: BatchResult(acks=[batch[0].id, "stranger"]))
    async with consuming(consumer_of(queue, worker, max_batch_size=2)):
        await queue.send_batch(texts("a", "b"))
        await clock.advance(10)
    assert worker.bodies == [["a", "b"], ["b"]]


@pytest.mark.parametrize("delay", [-1, 86_401, math.nan])
async def test_impossible_retry_delay_retries_the_batch(queue, clock, consumer_of, delay):
    """A delay that the platform would refuse is logged; the messages are retried without it.

    Source: Batching, Retries and Delays.
    """
    worker = Worker(clock, partial(retry_all, delay_seconds=delay))
    await queue.send(b"1")
    with capture_logs() as logs:
        async with consuming(consumer_of(queue, worker, max_retries=1, max_batch_timeout=0)):
            await clock.advance(1)
    assert len(worker.batches) == 2
    assert logs[0]["event"] == "queue batch not delivered"


async def test_exhausted_message_goes_to_the_dead_letter_queue(queue, dlq, clock, consumer_of):
    """After max_retries + 1 deliveries a message moves, unchanged, with attempts restarted.

    Source: Dead Letter Queues.
    """
    worker = Worker(clock, retry_all)
    await queue.send(b"1")
    (sent,) = await queue.peek(1)
    options = {"max_retries": 2, "max_batch_timeout": 0}
    async with consuming(consumer_of(queue, worker, dlq, **options)) as consumer:
        await clock.advance(1)
        assert (consumer.retried, consumer.dead, consumer.lost) == (2, 1, 0)
    assert [m.attempts for m in worker.messages] == [1, 2, 3]
    assert (await queue.metrics()).backlog_count == 0
    (dead,) = await dlq.lease(9, 60)
    assert dead == msgspec.structs.replace(sent, attempts=1, lease_id=dead.lease_id)


async def test_exhausted_message_without_dead_letter_queue_is_lost_loudly(
    queue, clock, consumer_of
):
    """Without a dead-letter queue the message is deleted, counted and logged by its id.

    Source: Dead Letter Queues.
    """
    worker = Worker(clock, retry_all)
    await queue.send(b"1")
    (sent,) = await queue.peek(1)
    with capture_logs() as logs:
        async with consuming(consumer_of(queue, worker, max_retries=0)) as consumer:
            await clock.advance(10)
            assert (consumer.retried, consumer.dead, consumer.lost) == (0, 0, 1)
    assert len(worker.batches) == 1
    assert (await queue.metrics()).backlog_count == 0
    assert [(entry["log_level"], entry["ids"]) for entry in logs] == [("error", [sent.id])]


async def test_dead_letter_queue_wakes_its_own_consumer(queue, dlq, clock, consumer_of):
    """A dead letter is delivered to the dead-letter queue's consumer like any message.

    Source: Dead Letter Queues.
    """
    failing = consumer_of(queue, Worker(clock, retry_all), dlq, max_retries=0, max_batch_timeout=0)
    worker = Worker(clock)
    async with consuming(consumer_of(dlq, worker, max_batch_timeout=0)), consuming(failing):
        await clock.advance(50)
        await queue.send(b"1")
        await settled()
        assert [m.attempts for m in worker.messages] == [1]


async def test_redriven_messages_take_the_original_path_again(queue, dlq, clock, consumer_of):
    """A failed message can be redriven while the consumer runs, fail again, and be redriven again.

    Source: Batching, Retries and Delays.
    """
    worker = Worker(clock, retry_all)
    consumer = consumer_of(queue, worker, dlq, max_retries=1, max_batch_timeout=0)
    await queue.send(b"1")
    async with consuming(consumer):
        for times in (1, 2):
            await clock.advance(1)
            assert (consumer.dead, (await dlq.metrics()).backlog_count) == (times, 1)
            assert await dlq.redrive(queue) == 1
        worker.decide = Worker(clock).decide
        await clock.advance(1)
        assert (consumer.dead, consumer.delivered) == (2, 1)
    assert [m.attempts for m in worker.messages] == [1, 2, 1, 2, 1]


async def test_message_outlives_a_delivery_longer_than_its_lease(queue, clock, consumer_of):
    """A delivery beyond the platform's time limit does not block the next delivery.

    Source: Batching, Retries and Delays.
    """
    worker = Worker(clock, takes=3600)
    options = {"max_concurrency": 2, "max_batch_timeout": 0}
    await queue.send(b"1")
    async with consuming(consumer_of(queue, worker, **options)):
        await clock.advance(17 * 60)
        await queue.send(b"2")
        await clock.advance(1)
    assert [[m.attempts for m in batch] for batch in worker.batches] == [[1], [2, 1]]


# --- consumers: concurrency ---------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3])
async def test_concurrency_keeps_to_its_limit(queue, clock, consumer_of, limit):
    """The number of batches in flight reaches max_concurrency and never exceeds it.

    Source: Consumer concurrency.
    """
    worker = Worker(clock, takes=10)
    await queue.send_batch(texts(*"x" * 20))
    options = {"max_batch_size": 2, "max_concurrency": limit}
    async with consuming(consumer_of(queue, worker, **options)) as consumer:
        assert consumer.in_flight == 2 * limit
        await clock.advance(200)
        assert consumer.delivered == 20
    assert worker.most == limit


async def test_auto_concurrency_grows_with_a_backlog_and_shrinks(queue, clock, consumer_of):
    """Auto concurrency starts at one batch, grows with the backlog to at most ten, and shrinks.

    Source: Consumer concurrency.
    """
    worker = Worker(clock, takes=10)
    for _ in range(2):
        await queue.send_batch(texts(*"x" * 100))
    async with consuming(consumer_of(queue, worker, max_batch_size=1)) as consumer:
        assert worker.running == 1
        await clock.advance(11)
        assert worker.running == 2
        await clock.advance(11)
        assert worker.running == 4
        await clock.advance(600)
        assert consumer.delivered == 200
        for _ in range(AUTO_CONCURRENCY_MAX):
            await queue.send(b"1")
            await clock.advance(11)
        assert consumer.concurrency == 1
    assert worker.most == AUTO_CONCURRENCY_MAX


@pytest.mark.parametrize(("failed", "most"), [(True, 1), (False, AUTO_CONCURRENCY_MAX)])
async def test_only_failures_keep_auto_concurrency_down(queue, clock, consumer_of, failed, most):
    """Only a thrown exception prevents more concurrency; retried messages do not.

    Source: Consumer concurrency.
    """
    worker = Worker(clock, takes=10)
    worker.decide = lambda batch: msgspec.structs.replace(retry_all(batch, 3600), failed=failed)
    await queue.send_batch(texts(*"x" * 100))
    async with consuming(consumer_of(queue, worker, max_batch_size=1)):
        await clock.advance(300)
    assert worker.most == most


async def test_batch_comes_with_the_backlog(queue, clock, consumer_of):
    """A batch has the queue's backlog at its delivery, including its own messages.

    Source: Changelog 2026-04-28, queue metrics.
    """
    worker = Worker(clock)
    await queue.send(b"later", "text", delay_seconds=600)
    await queue.send_batch(texts("ab", "c"))
    async with consuming(consumer_of(queue, worker, max_batch_size=2)):
        await clock.advance(1)
    assert worker.metrics == [producer.Metrics(3, 8, 1_800_000_000_000)]


async def test_auto_concurrency_stays_at_one_without_a_backlog(queue, clock, consumer_of):
    """Messages that arrive one after another are delivered one after another.

    Source: Consumer concurrency.
    """
    worker = Worker(clock, takes=1)
    async with consuming(consumer_of(queue, worker, max_batch_size=1)) as consumer:
        for _ in range(20):
            await queue.send(b"1")
            await clock.advance(2)
        assert (consumer.delivered, consumer.concurrency, worker.most) == (20, 1, 1)


async def test_slow_batch_does_not_hold_up_the_others(queue, clock, consumer_of):
    """While one delivery hangs, the other slots continue to deliver.

    Source: Consumer concurrency.
    """
    worker = Worker(clock)

    async def deliver(batch, metrics):
        if batch[0].body == b"hang":
            await anyio.sleep_forever()
        return await worker(batch)

    await queue.send_batch(texts("hang", *"x" * 20))
    options = {"max_batch_size": 1, "max_concurrency": 2}
    async with consuming(consumer_of(queue, deliver, **options)) as consumer:
        await clock.advance(1)
        assert (consumer.delivered, consumer.in_flight) == (20, 1)


# --- consumers: reload and failure --------------------------------------------------------------


async def test_cancelled_delivery_gives_its_messages_back_at_once(queue, clock, consumer_of):
    """Messages in flight at a reload go to the next consumer, with one more attempt.

    Source: edgesim, durability.
    """
    await queue.send_batch(texts("a", "b"))
    async with consuming(consumer_of(queue, Worker(clock, takes=60), max_batch_timeout=0)) as old:
        await clock.advance(1)
        assert old.in_flight == 2
    assert old.in_flight == 0
    worker = Worker(clock)
    async with consuming(consumer_of(queue, worker, max_batch_timeout=0)):
        assert worker.bodies == [["a", "b"]]
    assert [m.attempts for m in worker.messages] == [2, 2]


@pytest.mark.parametrize(
    ("operation", "decide", "expected"),
    [
        ("ack", None, (0, None, 0)),
        ("release", partial(retry_all, delay_seconds=600), (1, VirtualClock.start + 600, 0)),
        ("move", retry_all, (0, None, 1)),
    ],
)
async def test_cancellation_does_not_lose_a_decision(driver, clock, operation, decide, expected):
    """A decision that is being stored when the consumer is cancelled is kept.

    Source: edgesim, durability.
    """
    store = Unreliable(driver)
    queue, dlq = Queue("ingest", store, clock), Queue("dlq", store, clock)
    worker = Worker(clock, decide)
    await queue.send(b"1")
    store.slow = {operation}
    retries = 0 if operation == "move" else 3
    options = ConsumerConfig("ingest", 10, 0, retries, dead_letter_queue="dlq")
    async with consuming(Consumer(queue, options, worker, clock, dlq)) as consumer:
        assert (store.calls[-1], consumer.in_flight) == (operation, 1)
    left, dead = await queue.depth(), await dlq.depth()
    found = (left.messages, left.next_visible_at, dead.messages)
    assert found == pytest.approx(expected, abs=0.01)


async def test_store_failure_while_leasing_is_survived(driver, clock, consumer_of):
    """A failing store is polled again, with a log line for each failure.

    Source: edgesim, durability.
    """
    store = Unreliable(driver)
    queue = Queue("ingest", store, clock)
    worker = Worker(clock)
    await queue.send(b"1")
    store.broken = {"lease"}
    with capture_logs() as logs:
        async with consuming(consumer_of(queue, worker, max_batch_timeout=0)):
            await clock.advance(60)
            store.broken = {"depth"}
            await clock.advance(60)
            store.broken = set()
            await clock.advance(11)
    assert [m.attempts for m in worker.messages] == [1]
    assert {entry["error"] for entry in logs} == {"lease failed", "depth failed"}
    assert 10 < len(logs) < 50


async def test_store_failure_while_settling_is_insisted_on(driver, clock, consumer_of):
    """A decision that the store could not take is retried; nothing is delivered twice.

    Source: edgesim, durability.
    """
    store = Unreliable(driver)
    queue = Queue("ingest", store, clock)
    worker = Worker(clock)
    await queue.send(b"1")
    store.broken = {"ack"}
    async with consuming(consumer_of(queue, worker, max_batch_timeout=0)) as consumer:
        await clock.advance(60)
        assert (consumer.delivered, consumer.in_flight) == (0, 1)
        store.broken = set()
        await clock.advance(11)
        assert (consumer.delivered, consumer.in_flight) == (1, 0)
    assert len(worker.batches) == 1
    assert (await queue.metrics()).backlog_count == 0


async def test_broken_store_does_not_hold_up_a_shutdown(driver, clock, consumer_of):
    """A consumer whose store fails every call can still be cancelled.

    Source: edgesim, durability.
    """
    store = Unreliable(driver)
    queue = Queue("ingest", store, clock)
    await queue.send(b"1")
    async with consuming(consumer_of(queue, Worker(clock), max_batch_timeout=0)):
        store.broken = {"ack", "release", "depth", "lease"}
        await clock.advance(60)
        before = anyio.current_time()
    assert anyio.current_time() == before


async def test_idle_means_nothing_left_and_nothing_in_flight(queue, clock, consumer_of):
    """A drain waits for visible, delayed and leased messages alike.

    Source: edgesim, durability.
    """
    worker = Worker(clock, takes=10)
    async with consuming(consumer_of(queue, worker, max_batch_timeout=5)) as consumer:
        assert await consumer.idle()
        await queue.send(b"1", delay_seconds=100)
        await settled()
        assert not await consumer.idle()  # delayed
        await clock.advance(101)
        assert not await consumer.idle()  # visible
        await clock.advance(5)
        assert (worker.running, await consumer.idle()) == (1, False)
        await clock.advance(10)
        assert await consumer.idle()
        await queue.send(b"1")
        await clock.advance(6)
        await queue.purge()
        assert not await consumer.idle()  # no longer in the queue, but still in delivery


async def test_dead_letter_queue_must_be_the_configured_one(queue, dlq, clock):
    """A configured dead-letter queue must be passed.

    Source: Dead Letter Queues.
    """
    worker = Worker(clock)
    with pytest.raises(ValueError, match="ingest-dlq"):
        Consumer(queue, ConsumerConfig("ingest", dead_letter_queue="ingest-dlq"), worker, clock)


# --- pull consumers -----------------------------------------------------------------------------


@pytest.fixture
def pulling(queue, dlq):
    """A factory of pull consumers of the queue; dead letters go to the other queue."""

    def make(**values):
        return PullConsumer(queue, PullConfig(dead_letter_queue="ingest-dlq", **values), dlq)

    return make


async def test_pull_gives_five_messages_unless_told(queue, pulling):
    """A pull returns 5 messages by default, up to 100 on request, and fewer if there are fewer.

    Source: Pull consumers.
    """
    await queue.send_batch(texts(*"abcdefgh"))
    first = await pulling().pull()
    assert [(m.body, m.attempts) for m in first] == [(x.encode(), 1) for x in "abcde"]
    assert [m.body for m in await pulling().pull(100)] == [b"f", b"g", b"h"]
    assert await pulling().pull() == []


async def test_pulled_message_is_invisible_for_its_timeout(queue, pulling, clock):
    """An unsettled message can be pulled again after the visibility timeout, 30 s by default.

    Source: Pull consumers.
    """
    await queue.send(b"1")
    await pulling().pull()
    await clock.advance(29.9)
    assert await pulling().pull() == []
    await clock.advance(0.2)
    assert [m.attempts for m in await pulling().pull(visibility_timeout_ms=1000)] == [2]
    await clock.advance(1.1)
    assert [m.attempts for m in await pulling(visibility_timeout_ms=500).pull()] == [3]
    await clock.advance(0.6)
    assert len(await pulling().pull()) == 1


async def test_acked_pull_is_gone(queue, pulling, clock):
    """An ack by lease id removes the message permanently and is counted.

    Source: Pull consumers.
    """
    consumer = pulling()
    await queue.send_batch(texts("a", "b"))
    pulled = await consumer.pull()
    settled = await consumer.settle([m.lease_id for m in pulled], [])
    assert (settled.acks, settled.retries, settled.warnings) == (2, 0, {})
    assert (consumer.delivered, (await queue.metrics()).backlog_count) == (2, 0)


@pytest.mark.parametrize(("own", "seconds"), [(None, 20), (0, 0), (50, 50)])
async def test_retried_pull_comes_after_its_delay(queue, pulling, clock, own, seconds):
    """A retry's own delay overrides the consumer's, and 0 overrides it too.

    Source: Pull consumers.
    """
    consumer = pulling(retry_delay=20)
    await queue.send(b"1")
    (message,) = await consumer.pull()
    settled = await consumer.settle([], [Retry(message.lease_id, own)])
    assert (settled.acks, settled.retries, consumer.retried) == (0, 1, 1)
    if seconds:
        await clock.advance(seconds - 0.1)
        assert await consumer.pull() == []
        await clock.advance(0.2)
    assert [m.attempts for m in await consumer.pull()] == [2]


async def test_message_retried_too_often_is_dead(queue, dlq, pulling):
    """After max_retries + 1 pulls a retried message moves to the dead-letter queue.

    Source: Pull consumers; Dead Letter Queues.
    """
    consumer = pulling(max_retries=2)
    await queue.send(b"1")
    for attempt in (1, 2, 3):
        (message,) = await consumer.pull()
        assert message.attempts == attempt
        assert (await consumer.settle([], [Retry(message.lease_id)])).retries == 1
    assert await consumer.pull() == []
    assert (consumer.retried, consumer.dead) == (2, 1)
    assert [m.id for m in await dlq.peek(9)] == [message.id]


async def test_message_abandoned_too_often_is_dead(queue, dlq, pulling, clock):
    """A message whose last lease expired is dead at the next pull, which returns other messages.

    Source: Pull consumers; Dead Letter Queues.
    """
    consumer = pulling(max_retries=1, visibility_timeout_ms=1000)
    await queue.send(b"bad", "text")
    for _ in range(2):
        assert len(await consumer.pull()) == 1
        await clock.advance(1.1)
    await queue.send(b"good", "text")
    assert [m.body for m in await consumer.pull(1)] == [b"good"]
    assert (consumer.dead, [m.body for m in await dlq.peek(9)]) == (1, [b"bad"])


async def test_dead_pull_without_a_dead_letter_queue_is_lost_loudly(queue):
    """Without a dead-letter queue the message is deleted, counted and logged by its id.

    Source: Pull consumers.
    """
    consumer = PullConsumer(queue, PullConfig(max_retries=0))
    await queue.send(b"1")
    (message,) = await consumer.pull()
    with capture_logs() as logs:
        await consumer.settle([], [Retry(message.lease_id)])
    assert (consumer.dead, consumer.lost, (await queue.metrics()).backlog_count) == (0, 1, 0)
    assert [(entry["log_level"], entry["ids"]) for entry in logs] == [("error", [message.id])]


async def test_late_ack_counts_until_somebody_else_has_the_message(queue, pulling, clock):
    """An expired lease may still be acked until its message is pulled again.

    Source: Pull consumers.
    """
    consumer = pulling(visibility_timeout_ms=1000)
    await queue.send_batch(texts("a", "b"))
    late, stale = await consumer.pull()
    await clock.advance(2)
    assert (await consumer.settle([late.lease_id], [])).acks == 1
    (again,) = await consumer.pull(visibility_timeout_ms=60_000)
    await consumer.settle([stale.lease_id], [])
    await consumer.settle([], [Retry(stale.lease_id)])
    assert await consumer.pull() == []
    assert [m.id for m in await queue.peek(9)] == [stale.id]
    assert (await consumer.settle([again.lease_id], [])).acks == 1
    assert (await queue.metrics()).backlog_count == 0


async def test_strange_lease_id_is_a_warning(queue, pulling):
    """An invalid lease id is listed in the warnings; the other messages are settled.

    Source: Pull consumers.
    """
    consumer = pulling()
    await queue.send(b"1")
    (message,) = await consumer.pull()
    settled = await consumer.settle(["nonsense", message.lease_id], [Retry("ÿ"), Retry("bm8=")])
    assert (settled.acks, settled.retries) == (1, 0)
    assert settled.warnings == dict.fromkeys(("nonsense", "ÿ", "bm8="), "not a lease id")


@pytest.mark.parametrize("wrong", [0, 101, -1, 2.5, True])
async def test_pull_batch_size_limits(queue, pulling, wrong):
    """A batch size outside 1 to 100 is refused and leases nothing.

    Source: Pull consumers.
    """
    await queue.send(b"1")
    with pytest.raises(PlatformError, match=r"^batch_size must be a whole number from 1 to 100$"):
        await pulling().pull(wrong)
    assert [m.attempts for m in await queue.peek(1)] == [0]


async def test_visibility_timeout_is_at_most_12_hours(queue, pulling, clock):
    """A visibility timeout of 12 hours is allowed, a millisecond more is refused.

    Source: Limits.
    """
    await queue.send(b"1")
    with pytest.raises(PlatformError, match=r"^visibility_timeout_ms must be .* to 43200000$"):
        await pulling().pull(1, 43_200_001)
    await pulling().pull(1, 43_200_000)
    await clock.advance(43_199)
    assert await pulling().pull() == []
    await clock.advance(2)
    assert len(await pulling().pull()) == 1


async def test_retry_delay_outside_a_day_settles_nothing(queue, pulling):
    """An invalid delay refuses the whole call: none of its messages is acked.

    Source: Pull consumers.
    """
    await queue.send_batch(texts("a", "b"))
    good, bad = await pulling().pull()
    with pytest.raises(PlatformError, match=r"\(10203\)$"):
        await pulling().settle([good.lease_id], [Retry(bad.lease_id, 86_401)])
    assert (await queue.metrics()).backlog_count == 2


async def test_two_pullers_never_hold_the_same_message(queue, pulling):
    """A message pulled by one client is not returned to another, in either order of calls.

    Source: Pull consumers.
    """
    consumer = pulling()
    await queue.send_batch(texts(*"x" * 50))
    seen = []
    for size in (1, 7, 20, 50):
        seen += [m.id for m in await consumer.pull(size)]
    assert len(seen) == len(set(seen)) == 50


# --- property-based tests -----------------------------------------------------------------------


def virtually(scenario, url):
    """Run ``scenario(driver, clock)`` in virtual time on a fresh store."""

    async def run(_):
        clock = VirtualClock(seed=None)  # ids that differ from those of the example before
        async with open_in_virtual_time(url, clock) as driver:
            for name in await driver.names():
                await driver.purge(name)
            await scenario(driver, clock)

    run_virtual(run)


def examples(url):
    """Run 100 examples, but 10 for a driver that uses a real server."""
    return settings(max_examples=10 if scheme_of(url) == "nats" else 100, deadline=None)


def test_each_batch_is_full_or_due(url):
    """Each batch is delivered when it is full, or else exactly at its timeout, never early.

    A store shared by nodes reports changes by hints, which may come late: there it may be later.
    Source: Batching, Retries and Delays; Delivery guarantees.
    """
    exact = scheme_of(url) != "nats"

    @examples(url)
    @given(
        sends=st.lists(
            st.tuples(st.sampled_from([0, 0, 0, 0.5, 1, 3, 7]), st.sampled_from([0, 0, 2, 30])),
            min_size=1,
            max_size=30,
        ),
        size=st.integers(1, 6),
        timeout=st.sampled_from([0, 1, 5]),
    )
    def check(sends, size, timeout):
        async def scenario(driver, clock):
            queue, worker = Queue("q", driver, clock), Worker(clock)
            options = ConsumerConfig("q", size, timeout, max_concurrency=250)
            visible = {}
            async with consuming(Consumer(queue, options, worker, clock)) as consumer:
                for number, (pause, delay) in enumerate(sends):
                    await clock.advance(pause)
                    visible[str(number)] = anyio.current_time() + delay
                    await queue.send(str(number).encode(), "text", delay_seconds=delay)
                await clock.advance(60)
                assert await consumer.idle()
            for bodies, at in zip(worker.bodies, worker.times, strict=True):
                seen = [visible[body] for body in bodies]
                due = max(seen) if len(bodies) == size else min(seen) + timeout
                assert len(bodies) <= size
                assert at > due - 0.01 if not exact else at == pytest.approx(due, abs=0.01)
                assert at > max(seen) - 0.01
            assert sorted(m.body.decode() for m in worker.messages) == sorted(visible)

        virtually(scenario, url)

    check()


class Course(msgspec.Struct):
    """A random scenario: sends, the result of each delivery, and when the consumer is replaced."""

    sends: list[int]
    fates: list[str]
    takes: int
    reloads: list[float]
    size: int
    retries: int
    concurrency: int | None


courses = st.builds(
    Course,
    sends=st.lists(st.sampled_from([0, 5]), min_size=1, max_size=20),
    fates=st.lists(
        st.sampled_from(["ack", "retry", "late", "forget", "throw"]), min_size=1, max_size=20
    ),
    takes=st.sampled_from([0, 3]),
    reloads=st.lists(st.sampled_from([0.5, 4, 20]), min_size=1, max_size=4),
    size=st.integers(1, 5),
    retries=st.integers(0, 3),
    concurrency=st.sampled_from([None, 1, 3]),
)


def test_every_message_ends_in_exactly_one_place(url):
    """Acked, dead or queued: acks, retries, throws and reloads lose or duplicate no message.

    Source: Batching, Retries and Delays; Delivery guarantees.
    """

    @examples(url)
    @given(course=courses)
    def check(course):
        fates = cycle(course.fates)

        async def scenario(driver, clock):
            queue, dlq = Queue("q", driver, clock), Queue("dlq", driver, clock)
            settings = (course.size, 1, course.retries, 2, course.concurrency, "dlq")
            options = ConsumerConfig("q", *settings)
            acked, consumers = [], []

            def decide(batch):
                chosen = {m.id: next(fates) for m in batch}
                if "throw" in chosen.values():
                    raise OSError("boom")
                acks = [key for key, fate in chosen.items() if fate == "ack"]
                acked.extend(acks)
                again = {"retry": None, "late": 50}
                named = [Retry(key, again[fate]) for key, fate in chosen.items() if fate in again]
                return BatchResult(acks, named)

            for delay in course.sends:
                await queue.send(b"1", delay_seconds=delay)
            sent = [m.id for m in await queue.peek(99)]
            with capture_logs():
                for seconds in course.reloads:
                    worker = Worker(clock, decide, course.takes)
                    async with consuming(Consumer(queue, options, worker, clock, dlq)) as consumer:
                        consumers.append(consumer)
                        await clock.advance(seconds)
                    assert consumer.in_flight == 0
            dead = [m.id for m in await dlq.peek(99)]
            await clock.advance(100)
            queued = [m.id for m in await queue.lease(99, 1)]
            assert sorted(acked + dead + queued) == sorted(sent)
            assert sum(c.delivered for c in consumers) == len(acked)
            assert sum(c.dead for c in consumers) == len(dead)

        virtually(scenario, url)

    check()

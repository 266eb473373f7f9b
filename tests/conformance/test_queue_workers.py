"""Queues as seen by producing and consuming Workers, on every driver; each has a whole Simulator.

Each test names its source, as in test_queues.py.
"""

import json
import textwrap
from contextlib import asynccontextmanager

import anyio
import pytest

from edgesim.backends import open_backends
from edgesim.clock import Clock
from edgesim.config import Environment, load_project
from edgesim.config.project import Overrides
from edgesim.drivers import known
from edgesim.model import HttpRequest, read_all
from edgesim.queues.encoding import decode
from edgesim.simulator import open_simulator
from tests.loops import on_both_loops  # noqa: F401 (every test here runs on both loops)
from tests.queues_world import url_of

pytestmark = pytest.mark.anyio

PROJECT = """
workers = ["w"]
isolation = "inline"
[backends]
r2 = "memory:"
[queues.slow]
delivery_delay = 3600
"""
WRANGLER = {
    "name": "w",
    "main": "entry.py",
    "queues": {
        "producers": [
            {"binding": "Q", "queue": "in"},
            {"binding": "OUT", "queue": "out"},
            {"binding": "SLOW", "queue": "slow"},
            {"binding": "QUICK", "queue": "slow", "delivery_delay": 60},
        ],
        "consumers": [
            {"queue": "in", "max_batch_size": 3, "max_batch_timeout": 0.05, "max_retries": 1},
        ],
    },
}
WORKER = """
import asyncio, json
from datetime import datetime
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        Q, OUT, SLOW, QUICK = self.env.Q, self.env.OUT, self.env.SLOW, self.env.QUICK
        try:
            {fetch}
        except Exception as error:
            return Response(f"{{type(error).__name__}}: {{error}}", status=500)
        return Response(json.dumps(answer, default=repr))

    async def queue(self, batch, env=None, ctx=None):
        OUT = self.env.OUT
        first = [m for m in batch.messages if m.attempts == 1]
        {queue}
"""


class World:
    """A running project of one Worker with the given handler statements."""

    def __init__(self, simulator):
        self.simulator = simulator

    async def fetch(self):
        """Return the fetch handler's value, or the text of its exception."""
        response = await self.simulator.fetch(HttpRequest("GET", "http://w/"))
        body = (await read_all(response.body)).decode()
        return json.loads(body) if response.status == 200 else body

    async def shown(self, queue="out"):
        """Return the bodies that wait in a queue, oldest first."""
        return [
            decode(m.body, m.content_type)
            for m in await self.simulator.primitives.queue(queue).peek(100)
        ]

    async def until(self, count, queue="out"):
        """Wait until a queue holds ``count`` messages and return them."""
        with anyio.fail_after(60):
            while True:
                changed = self.simulator.primitives.queue(queue).changed
                if len(found := await self.shown(queue)) >= count:
                    return found
                await changed.wait()

    async def settled(self):
        """Wait until the consumer's queue is empty and return its counters."""
        queue = self.simulator.primitives.queue("in")
        with anyio.fail_after(60):
            while True:
                changed = queue.changed
                if not (await queue.depth()).messages:
                    return (await self.simulator.stats())["queues"]["in"]
                await changed.wait()


@pytest.fixture(params=known("queues"))
def running(request, tmp_path):
    """Open a World whose handlers run these statements."""

    @asynccontextmanager
    async def run(fetch="answer = None", queue="pass"):
        def indented(text, columns):
            return textwrap.indent(textwrap.dedent(text).strip(), " " * columns).strip()

        folder = tmp_path / "w"
        folder.mkdir()
        (tmp_path / "edgesim.toml").write_text(PROJECT)
        (folder / "wrangler.jsonc").write_text(json.dumps(WRANGLER))
        (folder / "entry.py").write_text(
            WORKER.format(fetch=indented(fetch, 12), queue=indented(queue, 8))
        )
        project = load_project(tmp_path, Overrides(queues=url_of(request, tmp_path)))
        clock = Clock()
        async with (
            open_backends(project, Environment(), clock) as backends,
            open_simulator(project, backends, clock) as simulator,
        ):
            yield World(simulator)

    return run


# --- producers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("Q.send()", "JsException: TypeError: Message body cannot be undefined"),
        ("Q.sendBatch([{}])", "JsException: TypeError: Message body cannot be undefined"),
        ("Q.sendBatch([])", "JsException: TypeError: sendBatch() requires at least one message"),
        ("Q.send(1, contentType='xml')", "Unsupported queue message content type: xml"),
        ("Q.send(1, contentType='text')", "requires a value of type string, but received: number"),
        ("Q.send('a', contentType='bytes')", "requires a value of type ArrayBufferView"),
        ("Q.send((1, 2))", "TypeError: <class 'tuple'> cannot be sent over RPC."),
        ("Q.send('x' * 128_000)", "exceeds limit of 128000 bytes (10204)"),
        (
            "Q.sendBatch([{'body': 1}] * 101)",
            "batch message count of 101 exceeds limit of 100 (10206)",
        ),
        ("Q.sendBatch([{'body': 'x' * 90_000}] * 3)", "exceeds limit of 256000 bytes (10205)"),
        ("Q.send(1, delaySeconds=86_401)", "(10203)"),
        ("Q.sendBatch([{'body': 1}], delaySeconds=-1)", "(10202)"),
        ("Q.send(1, delaySeconds='soon')", "delaySeconds must be a number, not 'soon'"),
        ("Q.sendBatch([1])", "Incorrect type for array element 0 of sendBatch()"),
        ("Q.send({1, 2}, contentType='v8')", "TypeError: a set cannot be sent in a v8 message"),
        ("Q.sendBatch([{'body': 1, 'delaySeconds': 'soon'}])", "delaySeconds must be a number"),
    ],
)
async def test_refused_sends_say_why(running, call, text):
    """A wrong argument and an exceeded limit have different errors, and nothing is stored.

    Source: workerd queue.c++; Limits.
    """
    async with running(f"answer = await {call}") as world:
        answer = await world.fetch()
        assert text in answer
        assert await world.shown("in") == []


async def test_bodies_arrive_as_they_were_sent(running):
    """Each content type carries the values it supports; json converts like JSON.stringify.

    Source: JavaScript APIs, QueuesContentType.
    """
    fetch = """
    when = datetime(2026, 1, 2, 3, 4, 5)
    await Q.send({"a": [1, None, 1.5, {7}], "at": when})
    await Q.send(None)
    await Q.sendBatch([{"body": "é", "contentType": "text"},
                       {"body": b"\\x00\\xff", "contentType": "bytes"},
                       {"body": {"raw": b"ab", "at": when, "big": 2**63}, "contentType": "v8"}])
    answer = "sent"
    """
    queue = "await OUT.sendBatch([{'body': repr(m.body)} for m in batch.messages])"
    async with running(fetch, queue) as world:
        assert await world.fetch() == "sent"
        raw, raw_v8 = "<memory at ", "{'raw': <memory at "
        first, null, text, data, clone = await world.until(5)
    assert first == "{'a': [1, None, 1.5, {}], 'at': '2026-01-02T03:04:05.000Z'}"
    assert (null, text) == ("None", "'é'")
    assert data.startswith(raw)
    assert clone.startswith(raw_v8)
    assert clone.endswith(f"'at': datetime.datetime(2026, 1, 2, 3, 4, 5), 'big': {2**63}}}")


async def test_send_returns_the_backlog(running):
    """send, sendBatch and metrics() return count, bytes and the oldest message's time as a Date.

    Source: Changelog 2026-04-28, queue metrics.
    """
    fetch = """
    one = await OUT.send("abc")
    two = await OUT.sendBatch([{"body": 1}, {"body": 2}])
    now = await OUT.metrics()
    answer = [one, two, now, type(now.oldestMessageTimestamp).__name__]
    """
    async with running(fetch) as world:
        one, two, now, kind = await world.fetch()
    assert one["metadata"]["metrics"]["backlogCount"] == 1
    assert two["metadata"]["metrics"] == now
    assert (now["backlogCount"], now["backlogBytes"], kind) == (3, 7, "datetime")


async def test_delay_of_message_batch_binding_and_queue(running):
    """A message's delay overrides its batch's, then the binding's, then the queue's own.

    Source: Batching, Retries and Delays.
    """
    fetch = """
    await SLOW.send("queue")
    await QUICK.send("binding")
    await QUICK.sendBatch([{"body": "message", "delaySeconds": 0}, {"body": "batch"}],
                          delaySeconds=1000)
    answer = None
    """
    async with running(fetch) as world:
        await world.fetch()
        queue, clock = world.simulator.primitives.queue("slow"), world.simulator.primitives.clock
        now, waits = clock.now(), []
        for _ in range(4):
            soon = (await queue.depth()).next_visible_at
            waits.append(max(0, round(soon - now)))
            await queue._driver.lease("slow", 1, soon, soon + 9e9)
    assert waits == pytest.approx([0, 60, 1000, 3600], abs=5)


# --- consumers ----------------------------------------------------------------------------------

SEND = "answer = await Q.sendBatch([{'body': n} for n in range(3)])"
TELL = "await OUT.sendBatch([{'body': [m.body, m.attempts]} for m in batch.messages])\n"


async def test_batch_is_what_the_handler_is_told(running):
    """A batch has its queue's name, its messages and the backlog; a message its id and time.

    Source: JavaScript APIs, MessageBatch; Changelog 2026-04-28.
    """
    queue = """
    m, = batch.messages[:1]
    metrics = batch.metadata.metrics
    await OUT.send([batch.queue, len(batch.messages), len(m.id), type(m.timestamp).__name__,
                    m.attempts, m.body, metrics.backlogCount, metrics.backlogBytes,
                    type(metrics.oldestMessageTimestamp).__name__])
    """
    async with running(SEND, queue) as world:
        await world.fetch()
        (told,) = await world.until(1)
    assert told == ["in", 3, 32, "datetime", 1, 0, 3, 3, "datetime"]


async def test_returning_acks_everything(running):
    """A handler that returns without a decision has acked its batch.

    Source: JavaScript APIs; Batching, Retries and Delays.
    """
    async with running(SEND, TELL) as world:
        await world.fetch()
        assert await world.until(3) == [[0, 1], [1, 1], [2, 1]]
        assert (await world.settled())["delivered"] == 3


async def test_throwing_retries_what_was_not_acked(running):
    """Messages acked before the exception stay acked; the others are retried.

    Source: Batching, Retries and Delays, explicit acknowledgement.
    """
    queue = TELL + "if first:\n    batch.messages[1].ack()\n    raise ValueError('no')"
    async with running(SEND, queue) as world:
        await world.fetch()
        assert await world.until(5) == [[0, 1], [1, 1], [2, 1], [0, 2], [2, 2]]
        assert (await world.settled())["delivered"] == 3


async def test_ack_all_survives_a_throw(running):
    """ackAll() before an exception acks the whole batch.

    Source: Batching, Retries and Delays; workerd queue.c++.
    """
    async with running(SEND, TELL + "batch.ackAll()\nraise ValueError('no')") as world:
        await world.fetch()
        assert (await world.settled())["delivered"] == 3
        assert len(await world.shown()) == 3


async def test_rejected_wait_until_fails_the_batch(running):
    """waitUntil work is awaited, and its exception retries the batch.

    Source: workerd, queue_consumer_no_wait_for_wait_until.
    """
    queue = """
    async def late():
        await asyncio.sleep(0.01)
        raise ValueError("no")
    """
    queue = TELL + textwrap.dedent(queue) + "\nif first:\n    self.ctx.waitUntil(late())"
    async with running(SEND, queue) as world:
        await world.fetch()
        assert [attempts for _, attempts in await world.until(6)] == [1, 1, 1, 2, 2, 2]
        await world.settled()


async def test_decisions_in_wait_until_work_count(running):
    """An ack by waitUntil work counts, also after the handler returned or raised.

    Source: workerd queue.c++ (the result is read when all work is done).
    """
    queue = """
    async def late():
        await asyncio.sleep(0.01)
        batch.messages[0].ack()
    """
    throw = "\nif first:\n    self.ctx.waitUntil(late())\n    raise ValueError('no')"
    async with running(SEND, TELL + textwrap.dedent(queue) + throw) as world:
        await world.fetch()
        assert (await world.until(5))[3:] == [[1, 2], [2, 2]]
        await world.settled()


@pytest.mark.parametrize(
    ("calls", "again"),
    [
        ("m[0].ack(); m[0].retry()", []),
        ("m[0].retry(); m[0].ack()", [0]),
        ("m[0].retry(); batch.ackAll()", [0]),
        ("m[0].ack(); batch.retryAll()", [1, 2]),
        ("batch.ackAll(); batch.retryAll()", []),
        ("batch.retryAll(); batch.ackAll()", [0, 1, 2]),
        ("batch.ackAll(); m[0].retry()", []),
        ("batch.retryAll(); m[0].ack()", [0, 1, 2]),
        ("m[0].retry({'delaySeconds': 0}); batch.ackAll()", [0]),
    ],
)
async def test_first_call_wins(running, calls, again):
    """Of ack and retry, on a message or its batch, the first call counts; a later one warns.

    Source: JavaScript APIs; workerd queue.c++.
    """
    async with running(SEND, TELL + f"m = batch.messages\nif first:\n    {calls}") as world:
        await world.fetch()
        await world.settled()
        assert [body for body, attempts in await world.shown() if attempts == 2] == again
        assert (await world.settled())["delivered"] == 3


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("m.retry(delaySeconds=86_401)", "delaySeconds must be between 0 and 86400, not 86401"),
        ("m.retry(5)", "retry takes delaySeconds=... or {'delaySeconds': ...}, not 5"),
        ("batch.retryAll(delaySeconds=-1)", "delaySeconds must be between 0 and 86400, not -1"),
    ],
)
async def test_impossible_retry_delay_is_a_type_error(running, call, text):
    """An invalid retry delay is a TypeError in the call that sets it.

    Source: Limits.
    """
    queue = f"""
    m = batch.messages[0]
    try:
        {call}
    except Exception as error:
        await OUT.send(str(error))
    """
    async with running(SEND, queue) as world:
        await world.fetch()
        assert await world.until(1) == [f"TypeError: {text}"]
        await world.settled()


async def test_messages_that_failed_their_last_delivery_are_counted(running):
    """After max_retries + 1 deliveries a message is deleted, and counted in the statistics.

    Source: Batching, Retries and Delays; Dead Letter Queues.
    """
    async with running(SEND, TELL + "batch.retryAll()") as world:
        await world.fetch()
        counts = await world.settled()
        assert [attempts for _, attempts in await world.shown()] == [1, 1, 1, 2, 2, 2]
        assert (counts["delivered"], counts["retried"], counts["dead"]) == (0, 3, 3)

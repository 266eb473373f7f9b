"""Tail Workers through a Simulator: real worker modules, on the inline level and some as processes.

The Tail Worker under test writes its events, field by field, into a bucket, where a test reads
them. Sections are those of the platform's facts: the types of Cloudflare's runtime (2.1), its trace
code (2.2) and observations of delivery (2.3).
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from edgesim.config.project import TailConfig
from edgesim.errors import ConfigError
from edgesim.isolates.protocol.wire import Done
from edgesim.model import TraceItem, read_all
from edgesim.r2.bucket import R2ObjectBody
from edgesim.runtime.tail import TailConsumer
from edgesim.simulator import Simulator
from edgesim.tracing import TraceSources
from tests.loops import on_both_loops  # noqa: F401 (every test here runs on both loops)
from tests.simulated import ask, settle, simulated, write_worker

pytestmark = pytest.mark.anyio

TAIL = '''
import uuid

def plain(value):
    """What JSON can hold of a raw value: undefined as None, null as "null"."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return "null" if repr(value) == "jsnull" else value.to_py()

def null(value):
    return "null"

def names(object, *wanted):
    return {name: plain(getattr(object, name)) for name in wanted}

class Default(WorkerEntrypoint):
    async def tail(self, events, env=None, ctx=None):
        calls = []
        for item in events:
            seen = names(
                item, "scriptName", "entrypoint", "outcome", "executionModel", "truncated",
                "eventTimestamp", "cpuTime", "wallTime", "dispatchNamespace", "scriptTags",
                "durableObjectId", "tailAttributes", "preview",
            )
            seen["version"] = item.scriptVersion.id
            seen["diagnostics"] = len(item.diagnosticsChannelEvents)
            seen["logs"] = [names(log, "timestamp", "level", "message") for log in item.logs]
            seen["exceptions"] = [
                names(each, "timestamp", "name", "message", "stack") for each in item.exceptions
            ]
            event = item.event
            request = getattr(event, "request", None)
            if request is not None:
                whole = request.getUnredacted()
                response = event.response
                seen["event"] = {
                    "request": names(request, "url", "method", "headers", "cf"),
                    "unredacted": names(whole, "url", "method", "headers"),
                    "status": None if response is None else response.status,
                }
            else:
                seen["event"] = event.to_py()
            calls.append(seen)
        await self.env.SEEN.put(f"{self.env.ME}/{uuid.uuid4()}", json.dumps(calls, default=null))
'''
SEEN = [{"binding": "SEEN", "bucket_name": "seen"}]
QUICK = "[tail]\nmax_seconds = 0.01\n"
OK = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("ok")
"""


def tail_worker(folder: Path, name: str = "tail", source: str = TAIL, **settings: Any) -> None:
    write_worker(folder, name, source, r2_buckets=SEEN, vars={"ME": name}, **settings)


def tailed(folder: Path, source: str, name: str = "main", **settings: Any) -> None:
    write_worker(folder, name, source, tail_consumers=[{"service": "tail"}], **settings)


async def calls(simulator: Simulator, worker: str = "tail") -> list[list[Any]]:
    """Return the events of each call of a Tail Worker."""
    await settle(simulator)
    bucket = simulator.primitives.bucket("seen")
    found = []
    for each in (await bucket.list(prefix=f"{worker}/")).objects:
        stored = await bucket.get(each.key)
        assert isinstance(stored, R2ObjectBody)
        found.append(msgspec.json.decode(await read_all(stored.body)))
    return found


async def items(simulator: Simulator, worker: str = "tail") -> list[Any]:
    """Return all traces that a Tail Worker received; the order of calls is not defined."""
    return [item for call in await calls(simulator, worker) for item in call]


@asynccontextmanager
async def world(
    folder: Path, source: str = OK, isolation: str = "inline", **settings: Any
) -> AsyncIterator[Simulator]:
    """Run one tailed Worker and its Tail Worker."""
    tail_worker(folder)
    tailed(folder, source, **settings)
    async with simulated(folder, "main", "tail", account=QUICK, isolation=isolation) as simulator:
        yield simulator


LEVELS = pytest.mark.parametrize("isolation", ["inline", "process"])


@LEVELS
async def test_a_trace_has_every_field(tmp_path, isolation):
    """Section 2.1: every field of a TraceItem is present; optional ones are undefined."""
    async with world(tmp_path, isolation=isolation) as simulator:
        assert await ask(simulator) == (200, b"ok")
        [item] = await items(simulator)
    assert item["scriptName"] == "main"
    assert (item["outcome"], item["executionModel"], item["truncated"]) == (
        "ok",
        "stateless",
        False,
    )
    assert item["eventTimestamp"] > 1_700_000_000_000
    assert isinstance(item["cpuTime"], int)
    assert isinstance(item["wallTime"], int)
    assert len(item["version"]) == 36
    assert item["diagnostics"] == 0
    for optional in ("entrypoint", "dispatchNamespace", "scriptTags", "durableObjectId"):
        assert item[optional] is None
    assert (item["tailAttributes"], item["preview"]) == (None, None)


@LEVELS
async def test_a_fetch_event(tmp_path, isolation):
    """Section 2.1: request with url, method, lower-case headers and cf; the response's status."""
    source = OK.replace('Response("ok")', 'Response("ok", status=201)')
    async with world(tmp_path, source, isolation) as simulator:
        await ask(simulator, "http://x/p?q=1", method="PUT", headers={"X-Probe": "Yes"}, body=b"b")
        [item] = await items(simulator)
    request = item["event"]["request"]
    assert (request["url"], request["method"]) == ("http://x/p?q=1", "PUT")
    assert request["headers"] == {"x-probe": "Yes"}
    assert request["cf"]["colo"] == "LIS"
    assert item["event"]["status"] == 201


async def test_a_fetch_that_throws_has_no_response(tmp_path):
    """Section 2.1: response is undefined if the handler raised; the client gets error 1101."""
    source = OK.replace('return Response("ok")', 'raise ValueError("bad luck")')
    async with world(tmp_path, source) as simulator:
        assert await ask(simulator) == (500, b"error code: 1101")
        [item] = await items(simulator)
    assert item["event"]["status"] is None
    assert item["outcome"] == "exception"


@LEVELS
async def test_an_exception_has_name_message_and_stack(tmp_path, isolation):
    """Section 2.1: a Python failure is a PythonError whose message is the whole traceback."""
    source = OK.replace('return Response("ok")', 'raise ValueError("bad luck")')
    async with world(tmp_path, source, isolation) as simulator:
        await ask(simulator)
        [item] = await items(simulator)
    [exception] = item["exceptions"]
    assert exception["name"] == "PythonError"
    assert exception["message"].endswith("ValueError: bad luck")
    assert "entry.py" in exception["stack"]
    assert exception["timestamp"] >= item["eventTimestamp"]


async def test_a_returned_500_is_ok(tmp_path):
    """Section 2.1: an error status that is returned, not raised, is outcome ok."""
    source = OK.replace('Response("ok")', 'Response("no", status=500)')
    async with world(tmp_path, source) as simulator:
        await ask(simulator)
        [item] = await items(simulator)
    assert (item["outcome"], item["event"]["status"]) == ("ok", 500)


@LEVELS
async def test_a_queue_event(tmp_path, isolation):
    """Section 2.1: a consumer's trace has the queue's name and the size of the batch."""
    source = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        await self.env.Q.sendBatch([{"body": number} for number in range(3)])
        return Response("ok")
    async def queue(self, batch, env=None, ctx=None):
        print("batch", len(batch.messages))
"""
    queues = {
        "producers": [{"binding": "Q", "queue": "jobs"}],
        "consumers": [{"queue": "jobs", "max_batch_size": 3, "max_batch_timeout": 1}],
    }
    async with world(tmp_path, source, isolation, queues=queues) as simulator:
        await ask(simulator)
        found = await items(simulator)
    [item] = [each for each in found if "queue" in each["event"]]
    assert item["event"] == {"queue": "jobs", "batchSize": 3}
    assert item["logs"][0]["message"] == ["batch 3"]


async def test_a_scheduled_event(tmp_path):
    """Section 2.1: a scheduled trace has cron and scheduledTime."""
    source = (
        OK
        + """
    async def scheduled(self, controller, env=None, ctx=None):
        controller.noRetry()
        print(controller.cron, controller.scheduledTime)
"""
    )
    async with world(tmp_path, source) as simulator:
        assert await simulator.scheduled("main", "*/5 * * * *", 1_700_000_100_000) == "ok"
        [item] = await items(simulator)
    assert item["event"] == {"cron": "*/5 * * * *", "scheduledTime": 1_700_000_100_000}
    assert item["logs"][0]["message"] == ["*/5 * * * * 1700000100000"]


CALLER = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(str(await self.env.OTHER.add(1, 2)))
"""
ADDER = """
class Default(WorkerEntrypoint):
    async def add(self, a, b):
        print("adding")
        return a + b
"""


@LEVELS
async def test_a_jsrpc_event(tmp_path, isolation):
    """Section 2.1: an RPC call's trace has the method's name, and goes to the callee's tail."""
    tail_worker(tmp_path)
    tailed(tmp_path, ADDER, "adder")
    write_worker(tmp_path, "main", CALLER, services=[{"binding": "OTHER", "service": "adder"}])
    async with simulated(
        tmp_path, "main", "adder", "tail", account=QUICK, isolation=isolation
    ) as simulator:
        assert await ask(simulator) == (200, b"3")
        [item] = await items(simulator)
    assert item["scriptName"] == "adder"
    assert item["event"] == {"rpcMethod": "add"}
    assert item["logs"][0]["message"] == ["adding"]


async def test_a_caller_does_not_tail_for_its_callee(tmp_path):
    """Section 2.3: a callee without tail_consumers is in no trace."""
    tail_worker(tmp_path)
    tailed(tmp_path, CALLER, services=[{"binding": "OTHER", "service": "adder"}])
    write_worker(tmp_path, "adder", ADDER)
    async with simulated(tmp_path, "main", "adder", "tail", account=QUICK) as simulator:
        await ask(simulator)
        [item] = await items(simulator)
    assert item["scriptName"] == "main"
    assert item["logs"] == []


async def test_a_tail_of_a_tail(tmp_path):
    """Sections 2.1, 2.3: a second Tail Worker's event names the Workers that the first consumed."""
    tail_worker(tmp_path, tail_consumers=[{"service": "second"}])
    tail_worker(tmp_path, "second")
    tailed(tmp_path, OK)
    async with simulated(tmp_path, "main", "tail", "second", account=QUICK) as simulator:
        await ask(simulator)
        [item] = await items(simulator, "second")
    assert item["scriptName"] == "tail"
    assert item["event"] == {"consumedEvents": [{"scriptName": "main"}]}


async def test_a_worker_never_gets_its_own_traces(tmp_path):
    """Section 2.3: a Tail Worker that names itself in tail_consumers gets no traces of its own."""
    tail_worker(tmp_path, tail_consumers=[{"service": "tail"}])
    tailed(tmp_path, OK)
    async with simulated(tmp_path, "main", "tail", account=QUICK) as simulator:
        await ask(simulator)
        assert [item["scriptName"] for item in await items(simulator)] == ["main"]
        assert simulator.workers["tail"].outcomes == {"ok": 1}


async def test_tail_workers_in_a_ring_are_refused(tmp_path):
    """Section 2.3: two that tail each other would run for ever; the start fails."""
    tail_worker(tmp_path, tail_consumers=[{"service": "second"}])
    tail_worker(tmp_path, "second", tail_consumers=[{"service": "tail"}])
    with pytest.raises(ConfigError, match="for ever"):
        async with simulated(tmp_path, "tail", "second"):
            pass


async def test_several_tail_workers_each_have_everything(tmp_path):
    """Section 2.3: each of tail_consumers receives each trace."""
    for name in ("tail", "second"):
        tail_worker(tmp_path, name)
    consumers = [{"service": "tail"}, {"service": "second"}]
    write_worker(tmp_path, "main", OK, tail_consumers=consumers)
    async with simulated(tmp_path, "main", "tail", "second", account=QUICK) as simulator:
        for _ in range(5):
            await ask(simulator)
        assert len(await items(simulator, "tail")) == 5
        assert len(await items(simulator, "second")) == 5


async def test_a_tail_worker_needs_a_tail_handler(tmp_path):
    """Section 2.3: a consumer without tail() is refused at start, with the file and the cure."""
    write_worker(tmp_path, "tail", OK)
    tailed(tmp_path, OK)
    with pytest.raises(ConfigError, match="no `tail` handler"):
        async with simulated(tmp_path, "main", "tail"):
            pass


@LEVELS
async def test_wait_until_work_is_in_the_trace(tmp_path, isolation):
    """Section 2.3: the trace is sent after waitUntil work, with its logs and its duration."""
    source = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        async def later():
            await asyncio.sleep(0.05)
            print("later")
        self.ctx.waitUntil(later())
        print("now")
        return Response("ok")
"""
    async with world(tmp_path, source, isolation) as simulator:
        await ask(simulator)
        [item] = await items(simulator)
    assert [log["message"] for log in item["logs"]] == [["now"], ["later"]]
    assert item["wallTime"] >= 50


async def test_a_rejected_wait_until_is_an_exception_beside_the_response(tmp_path):
    """Section 2.3: the trace has the exception, and the status that the client received."""
    source = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        async def later():
            raise KeyError("lost")
        self.ctx.waitUntil(later())
        return Response("ok")
"""
    async with world(tmp_path, source) as simulator:
        assert await ask(simulator) == (200, b"ok")
        [item] = await items(simulator)
    assert item["event"]["status"] == 200
    assert "KeyError" in item["exceptions"][0]["message"]


@LEVELS
async def test_python_logs(tmp_path, isolation):
    """print is one string per line at level log; stderr, and so logging, is console.error."""
    source = """
import logging
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        print("PIPE_ME", {"a": 1})
        print("one\\ntwo")
        print()
        print("loud", file=sys.stderr)
        logging.getLogger().warning("careful")
        return Response("ok")
"""
    async with world(tmp_path, source, isolation) as simulator:
        await ask(simulator)
        [item] = await items(simulator)
    logs = [(log["level"], *log["message"]) for log in item["logs"]]
    assert logs[:4] == [("log", "PIPE_ME {'a': 1}"), ("log", "one"), ("log", "two"), ("log", "")]
    assert ("error", "loud") in logs


@pytest.mark.parametrize("level", ["debug", "info", "log", "warn", "error"])
async def test_console_levels(tmp_path, level):
    """Sections 1.6, 2.1: a console method is a level, and its arguments are elements."""
    source = OK.replace("return", f"console.{level}('PIPE_ME', 'x', 7); return")
    async with world(tmp_path, source) as simulator:
        await ask(simulator)
        [item] = await items(simulator)
    [log] = item["logs"]
    assert (log["level"], log["message"]) == (level, ["PIPE_ME", "x", 7])


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("None", [None]),
        ("True, 1, 1.5", [True, 1, 1.5]),
        ("float('nan')", [None]),
        ("float('inf')", [None]),
        ("2**60", [str(2**60)]),
        ("{'a': 1}", ["{'a': 1}"]),
        ("[1, 2]", ["[1, 2]"]),
        ("", []),
    ],
)
async def test_console_arguments(tmp_path, argument, expected):
    """Sections 1.6, 2.2: plain values unchanged, NaN as null, others as their repr."""
    source = OK.replace("return", f"console.log({argument}); return")
    async with world(tmp_path, source) as simulator:
        await ask(simulator)
        [item] = await items(simulator)
    shown = [None if each == "null" else each for each in item["logs"][0]["message"]]
    assert [repr(each) for each in shown if each is not None] == [
        repr(each) for each in expected if each is not None
    ]
    assert len(shown) == len(expected)


async def test_logs_of_import_time_are_in_no_trace(tmp_path):
    """Section 1.6: output of the module's import is not part of an invocation."""
    async with world(tmp_path, "print('loading')\n" + OK) as simulator:
        await ask(simulator)
        [item] = await items(simulator)
    assert item["logs"] == []


SECRET_URL = "http://x/" + "0123456789abcdef" * 2 + "?card=4111111111111111&name=alice"
SECRET_HEADERS = {
    "Authorization": "Bearer x",
    "Cookie": "c=1",
    "X-Keyboard": "qwerty",
    "Accept": "a",
}


@LEVELS
async def test_requests_are_redacted(tmp_path, isolation):
    """Section 2.2: secret headers, long ids and card numbers are REDACTED."""
    async with world(tmp_path, isolation=isolation) as simulator:
        await ask(simulator, SECRET_URL, headers=SECRET_HEADERS)
        [item] = await items(simulator)
    request = item["event"]["request"]
    assert request["url"] == "http://x/REDACTED?card=REDACTED&name=alice"
    assert request["headers"] == {
        "authorization": "REDACTED",
        "cookie": "REDACTED",
        "x-keyboard": "REDACTED",
        "accept": "a",
    }


@LEVELS
async def test_get_unredacted(tmp_path, isolation):
    """Section 2.2: getUnredacted() returns the request with its full URL and headers."""
    async with world(tmp_path, isolation=isolation) as simulator:
        await ask(simulator, SECRET_URL, headers=SECRET_HEADERS)
        [item] = await items(simulator)
    whole = item["event"]["unredacted"]
    assert (whole["url"], whole["method"]) == (SECRET_URL, "GET")
    assert whole["headers"] == {name.lower(): value for name, value in SECRET_HEADERS.items()}


async def test_logs_and_exceptions_are_never_redacted(tmp_path):
    """Section 2.2: a Worker's logs and exceptions are passed on unchanged."""
    source = OK.replace(
        "return", "print(request.url); raise ValueError(request.url)\n        return"
    )
    async with world(tmp_path, source) as simulator:
        await ask(simulator, SECRET_URL)
        [item] = await items(simulator)
    assert item["logs"][0]["message"] == [SECRET_URL]
    assert SECRET_URL in item["exceptions"][0]["message"]


async def test_the_log_that_overflows_is_dropped_whole(tmp_path):
    """Section 2.2: over 256 KB one warning replaces it, later logs are lost, truncated is true."""
    source = OK.replace("return", "print('x' * 200_000); print('y' * 100_000); print('z'); return")
    async with world(tmp_path, source) as simulator:
        await ask(simulator)
        [item] = await items(simulator)
    assert [log["level"] for log in item["logs"]] == ["log", "warn"]
    assert item["logs"][1]["message"][0].startswith("Log size limit exceeded: More than 256KB")
    assert item["truncated"] is True
    assert item["outcome"] == "ok"


async def test_the_exception_that_overflows(tmp_path):
    """Section 2.2: an exception beyond the budget is replaced by a notice."""
    source = OK.replace("return", "raise ValueError('x' * 300_000)\n        return")
    async with world(tmp_path, source) as simulator:
        await ask(simulator)
        [item] = await items(simulator)
    [exception] = item["exceptions"]
    assert exception["message"] == (
        "Trace resource limit exceeded; subsequent exceptions not recorded."
    )
    assert (item["truncated"], item["outcome"]) == (True, "exception")


async def test_a_request_beyond_the_budget(tmp_path):
    """Section 2.2: only the method is kept; a warning says `could not capture event info`."""
    async with world(tmp_path) as simulator:
        assert await ask(simulator, "http://x/" + "a/" * 200_000, method="POST") == (200, b"ok")
        [item] = await items(simulator)
    request = item["event"]["request"]
    assert (request["method"], request["url"], request["headers"]) == ("POST", "", {})
    assert "could not capture event info" in item["logs"][0]["message"][0]
    assert item["truncated"] is True


async def test_the_budget_is_shared(tmp_path):
    """Section 2.2: URL and headers leave less room for logs."""
    source = OK.replace("return", "print('x' * 200_000); return")
    async with world(tmp_path, source) as simulator:
        await ask(simulator, "http://x/short")
        await ask(simulator, "http://x/" + "a/" * 40_000)
        found = await items(simulator)
    truncated = {item["event"]["request"]["url"][:14]: item["truncated"] for item in found}
    assert truncated == {"http://x/short": False, "http://x/a/a/a": True}


BROKEN_TAIL = """
class Default(WorkerEntrypoint):
    async def tail(self, events, env=None, ctx=None):
        raise RuntimeError("broken tail")
"""


async def test_a_throwing_tail_handler_loses_its_batch(tmp_path, capsys):
    """Section 2.3: there is no retry and the producer is not affected; it is counted and logged."""
    tail_worker(tmp_path, source=BROKEN_TAIL)
    tailed(tmp_path, OK)
    async with simulated(tmp_path, "main", "tail", account=QUICK) as simulator:
        assert await ask(simulator) == (200, b"ok")
        await settle(simulator)
        stats = await simulator.stats()
    assert stats["tail"] == {"items": 0, "lost": 1, "pending": 0, "pending_bytes": 0}
    assert stats["invocations"]["tail"] == {"exception": 1}
    said = capsys.readouterr()
    assert "tail handler failed, traces lost" in said.out + said.err


async def test_a_tail_handler_takes_three_arguments(tmp_path):
    """Section 1.2: tail(self, events) fails as on the platform, and loses the batch."""
    tail_worker(tmp_path, source=BROKEN_TAIL.replace(", env=None, ctx=None", ""))
    tailed(tmp_path, OK)
    async with simulated(tmp_path, "main", "tail", account=QUICK) as simulator:
        await ask(simulator)
        await settle(simulator)
        assert (await simulator.stats())["tail"]["lost"] == 1


async def test_a_tail_handlers_wait_until_is_waited_for(tmp_path):
    """Section 2.3: a tail handler may do all its work in waitUntil."""
    later = TAIL.replace("await self.env.SEEN.put(", "self.ctx.waitUntil(self.env.SEEN.put(")
    later = later.replace("json.dumps(calls, default=null))", "json.dumps(calls, default=null)))")
    tail_worker(tmp_path, source=later)
    tailed(tmp_path, OK)
    async with simulated(tmp_path, "main", "tail", account=QUICK) as simulator:
        await ask(simulator)
        assert len(await items(simulator)) == 1


async def until_tailed(simulator: Simulator, times: int) -> None:
    with anyio.fail_after(60):
        while simulator.workers["tail"].outcomes["ok"] < times:
            await anyio.lowlevel.checkpoint()


async def test_batches_by_count(tmp_path):
    """Section 2.3, edgesim's own setting: max_items traces are delivered at once."""
    tail_worker(tmp_path)
    tailed(tmp_path, OK)
    account = "[tail]\nmax_items = 4\nmax_seconds = 3600\n"
    async with simulated(tmp_path, "main", "tail", account=account) as simulator:
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(ask, simulator)
        await until_tailed(simulator, 2)
        assert [len(call) for call in await calls(simulator)] == [4, 4]


async def test_batches_by_age(tmp_path):
    """Section 2.3, edgesim's own setting: a trace is delivered after max_seconds, also alone."""
    tail_worker(tmp_path)
    tailed(tmp_path, OK)
    account = "[tail]\nmax_items = 100\nmax_seconds = 0.05\n"
    async with simulated(tmp_path, "main", "tail", account=account) as simulator:
        await ask(simulator)
        await until_tailed(simulator, 1)
        assert [len(call) for call in await calls(simulator)] == [1]


async def test_many_traces_all_arrive(tmp_path):
    """Section 2.3: 300 concurrent requests are 300 traces, each once."""
    source = OK.replace("return", "print(request.url); return")
    async with world(tmp_path, source) as simulator:
        async with anyio.create_task_group() as tasks:
            for number in range(300):
                tasks.start_soon(ask, simulator, f"http://x/{number}")
        found = await items(simulator)
    urls = sorted(item["logs"][0]["message"][0] for item in found)
    assert urls == sorted(f"http://x/{number}" for number in range(300))


async def test_traces_without_event_info_are_not_delivered():
    """Section 2.3: a trace whose event is null is not delivered."""
    delivered: list[str] = []

    async def deliver(batch: Sequence[TraceItem], sources: TraceSources) -> Done:
        delivered.extend(item.outcome for item in batch)
        return Done()

    consumer = TailConsumer("tail", TailConfig(max_items=1, max_seconds=0))
    consumer.add(TraceItem("main", None, 1.0, "internalError"))
    consumer.add(TraceItem("main", {"cron": "* * * * *"}, 1.0, "ok"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consumer.run, deliver)
        with anyio.fail_after(60):
            while consumer.pending:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert delivered == ["ok"]


async def test_a_version_is_what_the_code_is(tmp_path):
    """Section 2.1: scriptVersion.id changes with the module, and only then."""
    async with world(tmp_path) as simulator:
        await ask(simulator)
        config = simulator.project.workers["main"]
        await simulator.workers.start(config)
        await ask(simulator)
        main = tmp_path / "main" / "entry.py"
        main.write_text(main.read_text() + "\n# edited\n")
        await simulator.workers.start(config)
        await ask(simulator)
        versions = [item["version"] for item in await items(simulator)]
    assert sorted(versions.count(each) for each in set(versions)) == [1, 2]

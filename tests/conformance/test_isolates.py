"""One suite for every isolation level: the Worker's view and the platform's results."""

import importlib
import json
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from edgesim.clock import Clock
from edgesim.errors import PlatformError, WorkerLoadError
from edgesim.isolates.host.driver import DRIVERS, Host, Isolates
from edgesim.isolates.protocol.wire import Call, Done, Invoke, Log, Respond, StreamRef
from edgesim.model import BindingSpec, WorkerSpec
from tests.loops import on_both_loops  # noqa: F401 (every test here runs on both loops)

pytestmark = pytest.mark.anyio

LEVELS = ["process", "warm", "inline"]


def test_every_level_is_in_this_suite():
    """A new level must be added here."""
    assert sorted(DRIVERS) == sorted(LEVELS)


class Recorder(Host):
    """A recording host of an invocation; bindings are async functions by name."""

    def __init__(self, clock: Clock, **bindings: Any) -> None:
        self.logs: list[tuple[str, list[Any]]] = []
        self.responses: list[Respond] = []
        self.calls: list[Call] = []
        self.responded = anyio.Event()
        self.depth = 0
        self.cpu_ms: float | None = None
        self._clock = clock
        self._bindings = bindings

    async def call(self, call: Call) -> Any:
        if call.method == "sleepUntil":
            return await anyio.sleep(max(0, call.args[0] - self._clock.now()))
        self.calls.append(call)
        return await self._bindings[call.binding or call.method](call)

    def log(self, log: Log) -> None:
        self.logs.append((log.level, log.message))

    def respond(self, response: Respond) -> None:
        self.responses.append(response)
        self.responded.set()

    def spent(self, cpu_ms: float) -> None:
        self.cpu_ms = cpu_ms


class Level:
    """One isolation level, to run worker source on."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.clock = Clock()
        self._folder = folder

    @asynccontextmanager
    async def load(
        self, source: str, *bindings: BindingSpec, **files: str
    ) -> AsyncIterator[Isolates]:
        main = self._folder / "entry.py"
        main.write_text(IMPORTS + textwrap.dedent(source))
        for name, text in files.items():
            (self._folder / f"{name}.py").write_text(text)
        module = importlib.import_module(DRIVERS[self.name].partition(":")[0])
        spec = WorkerSpec("w", str(main), list(bindings))
        async with module.open_isolates(spec, self.clock) as isolates:
            yield isolates

    async def fetch(
        self,
        source: str,
        *specs: BindingSpec,
        url: str = "http://x/",
        body: Any = b"",
        **calls: Any,
    ) -> tuple[Done, Recorder]:
        host = Recorder(self.clock, **calls)
        async with self.load(source, *specs) as isolates:
            return await isolates.invoke(self.request(url, body), host), host

    def request(self, url: str = "http://x/", body: Any = b"") -> Invoke:
        event = {"method": "POST", "url": url, "headers": [("X-A", "1")], "body": body, "cf": {}}
        return Invoke("fetch", event, self.clock.now())


EMPTY_RESPONSE = {
    "status": 200,
    "statusText": "",
    "headers": [],
    "body": b"",
    "url": "http://x/",
    "redirected": False,
}
IMPORTS = """
import asyncio, json
from workers import WorkerEntrypoint, Response, Request, fetch, env
from js import console
"""


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, tmp_path: Path) -> Level:
    return Level(request.param, tmp_path)


async def test_request_and_response(level):
    """Method, URL, headers (case-insensitive) and body arrive; so do status, headers and body."""
    done, host = await level.fetch(
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                seen = [request.method, request.url, request.headers["x-a"], await request.text()]
                return Response(json.dumps(seen), status=201, headers={"X-B": "2"})
        """,
        url="http://x/p?q=1",
        body=b"hi",
    )
    response = host.responses[0]
    assert done.outcome == "ok"
    assert response.status == 201
    assert ("X-B", "2") in [tuple(pair) for pair in response.headers]
    assert response.body == b'["POST", "http://x/p?q=1", "1", "hi"]'


async def test_plain_functions_are_handlers_too(level):
    """A handler may be a plain function."""
    _, host = await level.fetch(
        """
        class Default(WorkerEntrypoint):
            def fetch(self, request):
                return Response("ok")
        """
    )
    assert host.responses[0].body == b"ok"


async def test_every_invocation_starts_fresh(level):
    """Module globals do not survive an invocation, in the module or in its siblings."""
    source = """
        import sibling
        count = 0
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                global count
                count += 1
                sibling.seen.append(count)
                return Response(f"{count} {len(sibling.seen)}")
        """
    host = Recorder(level.clock)
    async with level.load(source, sibling="seen = []\n") as isolates:
        for _ in range(3):
            await isolates.invoke(level.request(), host)
    assert [response.body for response in host.responses] == [b"1 1"] * 3


async def test_print_is_one_log_of_one_string_a_line(level):
    """print joins its arguments and splits at newlines; js.console keeps its arguments apart."""
    _, host = await level.fetch(
        """
        import sys
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                print("PIPE_ME", {"a": 1})
                print("one\\ntwo")
                console.warn("x", 1, None)
                print("to stderr", file=sys.stderr)
                return Response("ok")
        """
    )
    assert host.logs == [
        ("log", ["PIPE_ME {'a': 1}"]),
        ("log", ["one"]),
        ("log", ["two"]),
        ("warn", ["x", 1, None]),
        ("error", ["to stderr"]),
    ]


async def test_exception_is_told_with_its_traceback(level):
    """An uncaught exception is the outcome; its traceback has only the Worker's own frames."""
    done, host = await level.fetch(
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                return self.inner()
            def inner(self):
                raise ValueError("bad luck")
        """
    )
    assert done.outcome == "exception"
    assert host.responses == []
    failure = done.exceptions[0]
    assert failure.name == "PythonError"
    assert failure.message.endswith("ValueError: bad luck")
    assert "in inner" in failure.message
    assert "isolates" not in failure.message


async def test_a_header_cannot_carry_another(level):
    """A header value with a line end or NUL is a TypeError, and there is no response."""
    source = """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                return Response("x", headers={"x-a": await request.text()})
        """
    async with level.load(source) as isolates:
        for header in ("a\r\nSet-Cookie: x=1", "a\n\u2603", "nul\0"):
            host = Recorder(level.clock)
            done = await isolates.invoke(level.request(body=header.encode()), host)
            assert "Invalid header value" in done.exceptions[0].message, header
            assert host.responses == []


async def test_only_a_response_is_a_response(level):
    """Any return value but a Response is the platform's TypeError."""
    source = """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                return await request.json()
        """
    async with level.load(source) as isolates:
        for value in (b"null", b'"text"', b"42"):
            done = await isolates.invoke(level.request(body=value), Recorder(level.clock))
            message = done.exceptions[0].message
            assert "the Promise did not resolve to 'Response'" in message, value


async def test_system_exit_is_only_an_exception(level):
    """sys.exit ends only its own invocation, as an exception."""
    done, _ = await level.fetch(
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                raise SystemExit(3)
        """
    )
    assert done.outcome == "exception"


async def test_wait_until_goes_on_after_the_response(level):
    """The response is sent before waitUntil work is done; its logs belong to the invocation."""

    async def responded(call: Call) -> None:
        await host.responded.wait()

    host = Recorder(level.clock, GATE=responded)

    source = """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                async def later():
                    await self.env.GATE.open()
                    print("later")
                self.ctx.waitUntil(later())
                return Response("now")
        """
    async with level.load(source, BindingSpec("GATE", "service")) as isolates:
        with anyio.fail_after(60):
            done = await isolates.invoke(level.request(), host)
    assert done.outcome == "ok"
    assert host.logs == [("log", ["later"])]


async def test_rejected_wait_until_is_an_exception(level):
    """An exception in waitUntil work is the outcome; the response is not affected."""
    done, host = await level.fetch(
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                async def later():
                    raise KeyError("lost")
                self.ctx.waitUntil(later())
                return Response("now")
        """
    )
    assert done.outcome == "exception"
    assert host.responses[0].body == b"now"


async def test_env_has_values_and_bindings(level):
    """Text is str, JSON needs to_py, a missing name raises; module-level env is the same."""
    _, host = await level.fetch(
        """
        at_import = env.TEXT
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                missing = getattr(self.env, "NOPE", "none")
                seen = [self.env.TEXT, env.TEXT, at_import, self.env.CONFIG.to_py(), missing]
                return Response(json.dumps(seen))
        """,
        BindingSpec("TEXT", "text", "t"),
        BindingSpec("CONFIG", "json", {"a": [1]}),
    )
    assert host.responses[0].body == b'["t", "t", "t", {"a": [1]}, "none"]'


async def test_binding_call_and_its_answer(level):
    """A call passes its arguments and options, and its reply is converted."""

    async def queue(call: Call) -> Any:
        return {"metadata": {"metrics": {"backlogCount": 7, "backlogBytes": 1}}}

    _, host = await level.fetch(
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                result = await self.env.Q.send({"a": None}, delaySeconds=5)
                return Response(str(result.metadata.metrics.backlogCount))
        """,
        BindingSpec("Q", "queue"),
        Q=queue,
    )
    assert host.responses[0].body == b"7"
    assert host.calls[0].method == "send"
    assert host.calls[0].args == [{"a": None}]
    assert host.calls[0].options == {"delaySeconds": 5}


async def test_calls_run_at_the_same_time(level):
    """Two calls run concurrently."""
    both = anyio.Event()
    under_way = 0

    async def slow(call: Call) -> Any:
        nonlocal under_way
        under_way += 1
        if under_way == 2:
            both.set()
        await both.wait()
        return {}

    with anyio.fail_after(60):
        done, _ = await level.fetch(
            """
            class Default(WorkerEntrypoint):
                async def fetch(self, request):
                    await asyncio.gather(self.env.Q.send("a"), self.env.Q.send("b"))
                    return Response("ok")
            """,
            BindingSpec("Q", "queue"),
            Q=slow,
        )
    assert done.outcome == "ok"


async def test_refusal_of_a_binding_is_a_js_exception(level):
    """A binding's error is raised as JsException with the platform's text, and can be caught."""

    async def refuse(call: Call) -> Any:
        raise PlatformError("message length of 9 bytes exceeds limit (10204)")

    _, host = await level.fetch(
        """
        from pyodide.ffi import JsException
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                try:
                    await self.env.Q.send("x")
                except JsException as error:
                    return Response(str(error))
        """,
        BindingSpec("Q", "queue"),
        Q=refuse,
    )
    assert host.responses[0].body == b"Error: message length of 9 bytes exceeds limit (10204)"


async def test_values_that_cannot_cross(level):
    """A tuple, a bytearray or an unknown object as an argument is a TypeError; nothing is sent."""
    source = """
        VALUES = [(1, 2), bytearray(b'x'), {'a': (1,)}, object()]
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                await self.env.Q.send(VALUES[int(await request.text())])
        """
    async with level.load(source, BindingSpec("Q", "queue")) as isolates:
        for number in range(4):
            host = Recorder(level.clock)
            done = await isolates.invoke(level.request(body=b"%d" % number), host)
            assert "TypeError" in done.exceptions[0].message, number
            assert host.calls == []


async def test_body_by_handle_is_passed_on_unread(level):
    """A stream passed to fetch is sent as its handle: its bytes never enter the isolate."""

    async def service(call: Call) -> Any:
        return {
            "status": 200,
            "statusText": None,
            "headers": [],
            "body": b"",
            "url": "http://h/",
            "redirected": False,
        }

    done, host = await level.fetch(
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                answer = await self.env.SVC.fetch("http://h/", method="PUT", body=request.body)
                return Response(str(answer.ok))
        """,
        BindingSpec("SVC", "service"),
        body=StreamRef(4, 1 << 40),
        SVC=service,
    )
    assert done.outcome == "ok"
    sent = host.calls[0].args[0]
    assert sent["method"] == "PUT"
    assert sent["body"].id == 4


async def test_body_by_handle_is_read_in_chunks(level):
    """A stream is read chunk by chunk until its end, and only once."""
    chunks = [b"one ", b"two", b""]

    async def read(call: Call) -> Any:
        return chunks.pop(0)

    _, host = await level.fetch(
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                text = await request.text()
                try:
                    await request.text()
                except OSError as error:
                    return Response(f"{text}; {error}")
        """,
        body=StreamRef(1),
        read=read,
    )
    assert host.responses[0].body == b"one two; Body already used"


async def test_sleeping_and_timeouts(level):
    """asyncio's timers use the platform's clock."""
    with anyio.fail_after(60):
        _, host = await level.fetch(
            """
            class Default(WorkerEntrypoint):
                async def fetch(self, request):
                    await asyncio.sleep(0.01)
                    try:
                        async with asyncio.timeout(0.01):
                            await asyncio.Event().wait()
                    except TimeoutError:
                        return Response("timed out")
            """
        )
    assert host.responses[0].body == b"timed out"


BATCH = {
    "queue": "q",
    "messages": [
        {"id": str(number), "timestamp": 1_700_000_000_000, "attempts": 1, "body": {"n": number}}
        for number in range(4)
    ],
}


async def queue(level: Level, source: str) -> tuple[Done, Recorder]:
    host = Recorder(level.clock)
    async with level.load(source) as isolates:
        return await isolates.invoke(Invoke("queue", BATCH, level.clock.now()), host), host


async def test_queue_handler_decides_by_message(level):
    """Acks and retries are reported by message; the first decision counts and the second warns."""
    done, host = await queue(
        level,
        """
        class Default(WorkerEntrypoint):
            async def queue(self, batch, env=None, ctx=None):
                first, second, third, _ = batch.messages
                first.ack()
                second.retry(delaySeconds=5)
                third.ack()
                third.retry()
                print(batch.queue, first.body["n"], first.timestamp.year, first.attempts)
        """,
    )
    assert {key: tuple(value) for key, value in done.result["messages"].items()} == {
        "0": ("ack", None),
        "1": ("retry", 5),
        "2": ("ack", None),
    }
    assert done.result["all"] is None
    assert host.logs[0][0] == "warn"
    assert host.logs[1] == ("log", ["q 0 2023 1"])


async def test_explicit_acks_survive_a_throw(level):
    """Messages acked before the exception are still reported."""
    done, _ = await queue(
        level,
        """
        class Default(WorkerEntrypoint):
            async def queue(self, batch, env=None, ctx=None):
                batch.messages[0].ack()
                raise RuntimeError("no")
        """,
    )
    assert done.outcome == "exception"
    assert list(done.result["messages"]) == ["0"]


async def test_queue_handler_takes_three_arguments(level):
    """queue(self, batch) fails, as on the platform."""
    done, _ = await queue(
        level,
        """
        class Default(WorkerEntrypoint):
            async def queue(self, batch):
                pass
        """,
    )
    assert "takes 2 positional arguments but 4 were given" in done.exceptions[0].message


async def test_tail_items_have_attributes_only(level):
    """Trace items are proxies: attributes, no subscript; null is falsy but not None."""
    source = """
        class Default(WorkerEntrypoint):
            async def tail(self, events, env=None, ctx=None):
                for event in events:
                    line = " ".join(part for part in event.logs[0].message)
                    print(line, event.scriptName, bool(event.event), event.event is None)
                    try:
                        event["logs"]
                    except TypeError:
                        print("no subscript")
        """
    item = {"scriptName": "w", "event": None, "logs": [{"message": ["a", "b"]}]}
    host = Recorder(level.clock)
    async with level.load(source) as isolates:
        assert isolates.handlers == {"tail"}
        done = await isolates.invoke(Invoke("tail", [item], level.clock.now()), host)
    assert done.exceptions == []
    assert [message for _, message in host.logs] == [["a b w False False"], ["no subscript"]]


async def test_rpc(level):
    """A method can be called and returns a value; a missing one and Python's own cannot."""
    source = """
        class Default(WorkerEntrypoint):
            async def add(self, a, b):
                return {"sum": a + b}
        """
    host = Recorder(level.clock)
    async with level.load(source) as isolates:

        async def call(method: str) -> Done:
            event = {"method": method, "args": [1, 2]}
            done: Done = await isolates.invoke(Invoke("rpc", event, level.clock.now()), host)
            return done

        assert (await call("add")).result == {"sum": 3}
        for method in ("nope", "__init__"):
            failure = (await call(method)).exceptions[0]
            assert failure.message == f"Method {method} does not exist"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import nonexistent_package", "nonexistent_package"),
        ("def broken(:", "SyntaxError"),
        ("x = 1 / 0", "ZeroDivisionError"),
        ("class Default: pass", "not a subclass"),
        ("x = 1", "no class Default"),
        ("async def on_queue(batch): ...", "make it `queue` of class Default(WorkerEntrypoint)"),
        ("import asyncio; asyncio.run(fetch('http://x'))", "global scope"),
        ("raise SystemExit(1)", "SystemExit"),
    ],
)
async def test_a_module_that_does_not_load(level, source, expected):
    """One line with the error, and its place if it is in the module."""
    if level.name == "inline" and "asyncio.run" in source:
        pytest.skip("asyncio.run inside the platform's own running loop has an error of its own")
    with pytest.raises(WorkerLoadError) as caught:
        async with level.load(source):
            pass
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_many_at_once(level):
    """A hundred concurrent invocations all succeed."""
    source = """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                return Response(request.url)
        """
    host = Recorder(level.clock)
    async with level.load(source) as isolates, anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(isolates.invoke, level.request(f"http://x/{number}"), host)
    assert {response.body for response in host.responses} == {
        f"http://x/{number}".encode() for number in range(100)
    }


HALF = "\\ud800"
"""An unpaired surrogate, as written in worker source."""


async def test_half_a_character_is_replaced(level):
    """An unpaired surrogate is sent as U+FFFD: in logs, calls, replies and exceptions."""

    async def echo(call: Call) -> Any:
        assert call.args == [{"b\ufffd": ["c\ufffd"]}]
        return {"d\ud800": "e\udfff"}

    done, host = await level.fetch(
        f"""
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                print("a{HALF}")
                console.log("a{HALF}", 1)
                found = await self.env.SVC.echo({{"b{HALF}": ["c{HALF}"]}})
                print(json.dumps(found))
                async def later():
                    raise ValueError("f{HALF}")
                self.ctx.waitUntil(later())
                return Response("g{HALF}", headers={{"x": Request("http://x/h{HALF}").url}})
        """,
        BindingSpec("SVC", "service"),
        SVC=echo,
    )
    assert host.logs == [
        ("log", ["a\ufffd"]),
        ("log", ["a\ufffd", 1]),
        ("log", [json.dumps({"d\ufffd": "e\ufffd"})]),
    ]
    assert done.outcome == "exception"
    assert done.exceptions[0].message.endswith("ValueError: f\ufffd")
    assert host.responses[0].body == "g\ufffd".encode()
    assert ("x", "http://x/h%EF%BF%BD") in [tuple(pair) for pair in host.responses[0].headers]


async def test_half_a_character_in_json_is_escaped(level):
    """JSON.stringify writes an unpaired surrogate as an escape, as JavaScript does."""
    _, host = await level.fetch(
        f"""
        from js import JSON
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                return Response(JSON.stringify("a{HALF}"))
        """
    )
    assert host.responses[0].body == b'"a\\ud800"'


async def test_a_queue_handler_is_given_half_a_character(level):
    """A message that contains one is delivered, with U+FFFD in its place."""
    host = Recorder(level.clock)
    message = {"id": "0", "timestamp": 1, "attempts": 1, "body": {"text": "a\ud800"}}
    source = """
        class Default(WorkerEntrypoint):
            async def queue(self, batch, env=None, ctx=None):
                print(ascii(batch.messages[0].body["text"]))
                batch.messages[0].ack()
        """
    async with level.load(source) as isolates:
        batch = {"queue": "q", "messages": [message]}
        done = await isolates.invoke(Invoke("queue", batch, level.clock.now()), host)
    assert done.outcome == "ok", done
    assert host.logs == [("log", ["'a\\ufffd'"])]
    assert list(done.result["messages"]) == ["0"]


async def test_anything_can_be_logged(level):
    """A value without a JSON form is logged by its type; the rest of the line is unchanged."""
    done, host = await level.fetch(
        """
        from pyodide.ffi import to_js
        class Odd:
            pass
        class Text(str):
            pass
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                console.log("before", to_js({"a": Odd()}), to_js({"a": {1, 2}}), 1 << 70, Text("t"))
                console.log(float("nan"), b"bytes", None)
                return Response("ok")
        """
    )
    assert done.outcome == "ok", done
    assert host.logs[0][1] == ["before", "[object dict]", {"a": [1, 2]}, str(1 << 70), "t"]
    assert host.logs[1][1] == [None, "b'bytes'", None]


async def test_values_nested_deeply(level):
    """At any depth a value is sent, or the invocation has an exception of its own."""

    async def echo(call: Call) -> Any:
        return call.args[0]

    source = """
        from pyodide.ffi import to_js
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                value = []
                for _ in range(int(await request.text())):
                    value = [value]
                for attempt in (lambda: console.log(value), lambda: console.log(to_js(value))):
                    try:
                        attempt()
                    except RecursionError:
                        pass
                try:
                    await self.env.SVC.echo(value)
                except RecursionError:
                    pass
                return Response("ok")
        """
    async with level.load(source, BindingSpec("SVC", "service")) as isolates:
        for depth in (200, 400, 440, 460, 480, 500, 10_000):
            host = Recorder(level.clock, SVC=echo)
            done = await isolates.invoke(level.request(body=str(depth).encode()), host)
            assert done.outcome == "ok", (depth, done)
            assert host.responses[0].body == b"ok", depth


async def test_an_event_nested_deeply(level):
    """The handler receives it, or the invocation is an exception; the isolate stays usable."""
    host = Recorder(level.clock)
    source = """
        class Default(WorkerEntrypoint):
            async def queue(self, batch, env=None, ctx=None):
                for message in batch.messages:
                    message.ack()
        """
    async with level.load(source) as isolates:
        for depth in (400, *range(700, 1020, 20)):
            body: Any = []
            for _ in range(depth):
                body = [body]
            message = {"id": "0", "timestamp": 1, "attempts": 1, "body": body}
            event = {"queue": "q", "messages": [message]}
            done = await isolates.invoke(Invoke("queue", event, level.clock.now()), host)
            assert done.outcome in {"ok", "exception"}, (depth, done)
            event = {"queue": "q", "messages": []}
            done = await isolates.invoke(Invoke("queue", event, level.clock.now()), host)
            assert done.outcome == "ok", (depth, done)


async def test_decisions_that_cannot_cross(level):
    """An object among a batch's decisions is an exception and does not end the process."""
    done, _ = await queue(
        level,
        """
        class Default(WorkerEntrypoint):
            async def queue(self, batch, env=None, ctx=None):
                batch._decisions["messages"]["0"] = object()
        """,
    )
    assert done.outcome == "exception", done
    assert done.result is None


async def test_every_invocation_has_its_cpu_time(level):
    """CPU time of the shortest handler is more than 0, and never more than the time that passed."""
    source = """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                return Response("ok")
        """
    used = []
    async with level.load(source) as isolates:
        for _ in range(30):
            began = time.perf_counter()
            done = await isolates.invoke(level.request(), Recorder(level.clock))
            used.append(done.cpu_ms)
            assert done.cpu_ms <= (time.perf_counter() - began) * 1000
    assert min(used) > 0.01


@pytest.mark.linux
async def test_a_cancelled_invocation_has_its_cpu_time(level):
    """The host receives the CPU time up to the cancellation, without that of other invocations."""
    source = """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                for _ in range(int(await request.text())):
                    pass
                await env.GATE.fetch("http://x/")
        """
    reached = anyio.Event()

    async def answer_first(call: Call) -> Any:
        if host is not first:
            reached.set()
            await anyio.sleep_forever()
        return EMPTY_RESPONSE

    host = first = Recorder(level.clock, GATE=answer_first)
    async with level.load(source, BindingSpec("GATE", "service")) as isolates:
        before = await isolates.invoke(level.request(body=b"3000000"), host)
        host = Recorder(level.clock, GATE=answer_first)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(isolates.invoke, level.request(body=b"300000"), host)
            await reached.wait()
            tasks.cancel_scope.cancel()
    assert host.cpu_ms is not None
    assert before.cpu_ms / 100 < host.cpu_ms < before.cpu_ms


@pytest.mark.linux
@pytest.mark.parametrize("name", ["process", "warm"])
async def test_a_computing_invocation_that_is_cancelled_has_its_cpu_time(name, tmp_path):
    """The CPU time of a process that cannot reply to a cancellation is measured from outside."""
    source = """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                await env.GATE.fetch("http://x/")
                console.log("computes")
                while True:
                    pass
        """
    logged = anyio.Event()

    class Listener(Recorder):
        def log(self, log: Log) -> None:
            logged.set()

    async def answer(call: Call) -> Any:
        return EMPTY_RESPONSE

    level = Level(name, tmp_path)
    host = Listener(level.clock, GATE=answer)
    began = time.perf_counter()
    async with (
        level.load(source, BindingSpec("GATE", "service")) as isolates,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(isolates.invoke, level.request(), host)
        await logged.wait()
        tasks.cancel_scope.cancel()
    assert host.cpu_ms is not None
    assert 0 < host.cpu_ms < (time.perf_counter() - began) * 1000


async def test_a_request_to_a_worker_without_fetch(level):
    """It fails with the platform's text; the Worker's other handlers run."""
    source = """
        class Default(WorkerEntrypoint):
            async def scheduled(self, controller, env=None, ctx=None):
                print(controller.cron)
        """
    host = Recorder(level.clock)
    async with level.load(source) as isolates:
        assert isolates.handlers == {"scheduled"}
        (failure,) = (await isolates.invoke(level.request(), host)).exceptions
        assert "Handler does not export a fetch() function." in failure.message
        event = {"cron": "* * * * *", "scheduledTime": 0}
        done = await isolates.invoke(Invoke("scheduled", event, level.clock.now()), host)
    assert done.outcome == "ok"
    assert host.logs == [("log", ["* * * * *"])]


async def test_temporary_files_and_blocking_calls(level):
    """Temporary files without a name, spooled ones beyond their limit, and to_thread work."""
    done, host = await level.fetch(
        """
        import tempfile

        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                with tempfile.TemporaryFile() as file:
                    file.write(b"kept")
                    file.seek(1)
                    found = [file.read().decode()]
                with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as file:
                    file.write("a\\nž")
                    file.seek(0)
                    found.append(file.read())
                with tempfile.SpooledTemporaryFile(max_size=10) as file:
                    file.write(b"x" * 11)
                    file.seek(9)
                    found.append(file.read().decode())
                found.append(await asyncio.to_thread(divmod, 7, 2))
                return Response(json.dumps(found))
        """
    )
    assert done.exceptions == []
    assert json.loads(host.responses[0].body) == ["ept", "a\nž", "xx", [3, 1]]

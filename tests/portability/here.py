"""Runs a scenario with edgesim's own runtime and returns the observed behaviour."""

import base64
import importlib
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from edgesim.clock import Clock
from edgesim.errors import PlatformError
from edgesim.isolates.host.driver import DRIVERS
from edgesim.isolates.protocol.wire import Done, Invoke, StreamRef
from edgesim.model import BindingSpec, HttpRequest, HttpResponse, WorkerSpec, read_all
from edgesim.queues.encoding import content_type_of, decode, encode
from edgesim.r2.bucket import Bucket
from edgesim.r2.local.memory import open_r2
from edgesim.r2.notifications import Notifications
from edgesim.runtime.invocation import Invocation
from edgesim.runtime.lineage import Lineage
from edgesim.runtime.r2_binding import R2Binding
from edgesim.runtime.trace import Trace
from tests.portability.scenarios import HANDLERS, NOW_MS, ROOT


class StillClock(Clock):
    """A clock that always shows NOW_MS."""

    def now(self) -> float:
        return NOW_MS / 1000

    def now_ms(self) -> int:
        return NOW_MS


class Recorder:
    """Calls that a Worker made, in a form that the JavaScript side can produce too."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, binding: str, method: str, *args: Any) -> None:
        self.calls.append({"binding": binding, "method": method, "args": canonical(list(args))})


def canonical(value: Any) -> Any:
    """Return the value as JSON, with a ``$`` key for types that JSON lacks."""
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, bytes | memoryview):
        return {"$bytes": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, datetime):
        return {"$date": round(value.timestamp() * 1000)}
    if isinstance(value, int) and abs(value) >= 2**53:
        return {"$int": str(value)}
    return value


class QueueFake:
    """A producer whose messages are encoded and decoded by edgesim, then recorded."""

    counts_as_connection = False
    counts_as_subrequest = True

    def __init__(self, name: str, spec: dict[str, Any], record: Recorder) -> None:
        self._name, self._spec, self._record = name, spec, record

    async def call(self, method: str, args: list[Any], options: dict[str, Any], _: Any) -> Any:
        metrics = {"backlogCount": 3, "backlogBytes": 30}
        if method == "metrics":
            self._record(self._name, method)
            return metrics
        rest = [options] if options else []
        if method == "send":
            self._record(self._name, method, _encoded(args[0], options), *rest)
        else:
            messages = [each | {"body": _encoded(each["body"], each)} for each in args[0]]
            self._record(self._name, method, messages, *rest)
        if "error" in self._spec:
            raise PlatformError(self._spec["error"])
        return {"metadata": {"metrics": metrics}}


def _encoded(body: Any, options: dict[str, Any]) -> Any:
    kind = content_type_of(options.get("contentType", "json"))
    return decode(encode(body, kind), kind)


class StubFake:
    """A service or a pipeline that records calls and replies from the scenario."""

    counts_as_connection = False
    counts_as_subrequest = True

    def __init__(self, name: str, spec: dict[str, Any], record: Recorder) -> None:
        self._name, self._spec, self._record = name, dict(spec), record
        self._responses = list(spec.get("responses", []))

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        if method == "fetch":
            return await invocation.fetch_through(self.fetch, args)
        self._record(self._name, method, *args)
        if "error" in self._spec:
            raise PlatformError(self._spec["error"])
        answer = self._spec.get("rpc", {}).get(method)
        if answer is None and self._spec["kind"] != "pipeline":
            text = f'The RPC receiver does not implement the method "{method}".'
            raise PlatformError(text, "TypeError")
        if "error" in (answer or {}):
            raise PlatformError(answer["error"])
        return (answer or {}).get("value")

    async def fetch(self, request: HttpRequest, lineage: Lineage) -> HttpResponse:
        seen = {
            "method": request.method,
            "url": request.url,
            "headers": shown_headers(request.headers),
            "body": base64.b64encode(await read_all(request.body)).decode(),
        }
        self._record(self._name, "fetch", seen)
        if "error" in self._spec:
            raise PlatformError(self._spec["error"], "AbortError")
        answer = self._responses.pop(0) if self._responses else {}
        headers = list(answer.get("headers", {}).items())
        return HttpResponse(
            answer.get("status", 200), headers, base64.b64decode(answer.get("body", ""))
        )


class R2Fake:
    """edgesim's own bucket in memory; its calls are recorded."""

    counts_as_connection = False
    counts_as_subrequest = True

    def __init__(self, name: str, spec: dict[str, Any], bucket: Bucket, record: Recorder) -> None:
        self._name, self._spec, self._record = name, spec, record
        self._binding = R2Binding(bucket)

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        if method == "put" and isinstance(args[1], StreamRef):
            args[1] = await read_all(invocation.take_body(args[1]))
        shown = [args[0], _content(args[1])] if method == "put" else args
        self._record(self._name, method, *shown, *([options] if options else []))
        if "error" in self._spec:
            raise PlatformError(self._spec["error"])
        return await self._binding.call(method, args, options, invocation)


def _content(value: Any) -> Any:
    """Return the bytes that a put stores for text or bytes."""
    return value.encode() if isinstance(value, str) else value or b""


def shown_headers(headers: list[tuple[str, str]]) -> list[list[str]]:
    """Return headers as JavaScript iterates over them: lower case, sorted, repeated ones joined."""
    joined: dict[str, list[str]] = {}
    for name, value in headers:
        joined.setdefault(name.lower(), []).append(value)
    shown = []
    for name in sorted(joined):
        values = joined[name] if name == "set-cookie" else [", ".join(joined[name])]
        shown += [[name, value] for value in values]
    return shown


async def run(scenario: dict[str, Any], level: str) -> dict[str, Any]:
    """Run the scenario's event at the isolation level and return the Worker's behaviour."""
    record = Recorder()
    clock = StillClock(seed=1)
    async with AsyncExitStack() as stack:
        bindings = {
            name: await stack.enter_async_context(_binding(name, spec, clock, record))
            for name, spec in scenario["bindings"].items()
        }
        outbound = StubFake("", scenario["outbound"], record)
        trace = Trace("worker", {}, NOW_MS)
        invocation = Invocation("worker", bindings, outbound.fetch, trace, clock)
        event = await _event(scenario, invocation)
        handler = scenario["handler"] if scenario["handler"] in HANDLERS else "rpc"
        # Time and random numbers are the same on both sides.
        with (
            patch("time.time", clock.now),
            patch("random.random", lambda: 0.5),
            patch.object(logging.root, "handlers", []),  # without pytest's handlers
        ):
            done = await _invoke(scenario, level, Invoke(handler, event, clock.now()), invocation)
        result = await _seen(scenario, done, invocation)
        await invocation.close()
    return result | {"calls": record.calls}


@asynccontextmanager
async def _binding(
    name: str, spec: dict[str, Any], clock: Clock, record: Recorder
) -> AsyncIterator[Any]:
    if spec["kind"] == "queue":
        yield QueueFake(name, spec, record)
    elif spec["kind"] == "r2":
        async with open_r2("memory:", clock, Path()) as driver:
            bucket = Bucket(name, driver, clock, Notifications({}, clock, "account"))
            for key, each in spec.get("objects", {}).items():
                metadata = {"custom_metadata": each.get("customMetadata", {})}
                await bucket.put(key, base64.b64decode(each["body"]), **metadata)
            yield R2Fake(name, spec, bucket, record)
    else:
        yield StubFake(name, spec, record)


async def _invoke(
    scenario: dict[str, Any], level: str, invoke: Invoke, invocation: Invocation
) -> Done:
    specs = [
        BindingSpec(name, "text" if isinstance(value, str) else "json", value)
        for name, value in scenario["vars"].items()
    ]
    specs += [BindingSpec(name, spec["kind"]) for name, spec in scenario["bindings"].items()]
    spec = WorkerSpec("worker", str(ROOT / scenario["main"]), specs)
    module = importlib.import_module(DRIVERS[level].partition(":")[0])
    async with module.open_isolates(spec, StillClock()) as isolates:
        done: Done = await isolates.invoke(invoke, invocation)
    return done


async def _event(scenario: dict[str, Any], invocation: Invocation) -> Any:
    match scenario["handler"]:
        case "fetch":
            request = scenario["request"]
            body = base64.b64decode(request["body"] or "")
            headers = [tuple(pair) for pair in request["headers"]]
            wire = await invocation.give_body(body)
            return request | {"headers": headers, "body": wire, "cf": request["cf"] or {}}
        case "queue":
            batch = scenario["batch"]
            messages = [each | {"body": _message_body(each)} for each in batch["messages"]]
            return batch | {"messages": messages}
        case "tail":
            return scenario["traces"]
        case "scheduled":
            return scenario["controller"]
        case method:
            return {"method": method, "args": scenario["args"]}


def _message_body(message: dict[str, Any]) -> Any:
    match message["contentType"]:
        case "bytes":
            return base64.b64decode(message["body"])
        case "date":
            return datetime.fromisoformat(message["body"])
    return message["body"]


async def _seen(scenario: dict[str, Any], done: Done, invocation: Invocation) -> dict[str, Any]:
    seen: dict[str, Any] = {
        "name": scenario["name"],
        "outcome": done.outcome,
        "logs": [[log.level, canonical(log.message)] for log in invocation.trace.logs],
        "exceptions": [failure.message.rstrip().splitlines()[-1] for failure in done.exceptions],
    }
    handler = scenario["handler"]
    if handler == "fetch":
        if invocation.response is not None:
            seen["response"] = {
                "status": invocation.response.status,
                "headers": shown_headers(invocation.response.headers),
                "body": base64.b64encode(await read_all(invocation.response.body)).decode(),
            }
    elif handler == "queue":
        result = dict(done.result)
        messages = {key: list(value) for key, value in result["messages"].items()}
        seen["decisions"] = result | {"messages": messages}
    elif handler not in HANDLERS and (done.outcome == "ok" or done.result is not None):
        seen["returned"] = canonical(done.result)
    return seen

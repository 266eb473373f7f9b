"""The tools of ``edgesim mcp``: the fields of a struct are the arguments of its tool.

A docstring is the description that the client shows, ``Meta(description)`` that of an argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Protocol

import anyio
import msgspec
from msgspec import UNSET, Meta

from edgesim.cli.mcp.failure import last_failure
from edgesim.cli.mcp.node import NodeReply, RunningNode
from edgesim.errors import UsageError, hint
from edgesim.runtime.ingest import PATH as INGEST_PATH

RESULT_CHARS_MAX = 50_000
"""Size of the rows or places in one result; a model reads all of it."""
BODY_CHARS_MAX = 10_000
SECONDS_MAX = 600.0
_LOOK_SECONDS = 0.25
_SELECT = re.compile(r"\s*SELECT\b", re.IGNORECASE)


class ToolCall(Protocol):
    """The arguments of one call."""

    TITLE: ClassVar[str]
    READ_ONLY: ClassVar[bool]

    async def run(self, node: RunningNode) -> Any:
        """The result, as JSON values."""


class SendEvent(msgspec.Struct, forbid_unknown_fields=True):
    """Send one event into the running project, and return the reply.

    Without `to` it is an HTTP request to the entry Worker, as a client of the deployed project
    sends it. What a handler does then is real: rows, objects and messages are stored.
    """

    TITLE: ClassVar[str] = "Send an event"
    READ_ONLY: ClassVar[bool] = False

    event: Annotated[
        Any, Meta(description="JSON; a string is sent as it is; absent for a request without body")
    ] = UNSET
    to: Annotated[
        str, Meta(description="workers.NAME, streams.NAME or queues.NAME; default: entry Worker")
    ] = ""
    method: Annotated[str, Meta(description="HTTP method, for a Worker")] = "POST"
    path: Annotated[str, Meta(description="path and query, for a Worker")] = "/"
    headers: Annotated[dict[str, str], Meta(description="HTTP headers, for a Worker")] = {}

    async def run(self, node: RunningNode) -> Any:
        kind, dot, name = self.to.partition(".")
        if self.to and (kind not in {"workers", "streams", "queues"} or not dot):
            raise UsageError(
                f"to: {self.to!r} is none of workers.NAME, streams.NAME and queues.NAME"
            )
        if kind == "queues":
            return await node.operate("queue.send", queue=name, body=self._required())
        if kind == "streams":
            records = self._required()
            batch = records if isinstance(records, list) else [records]
            return _shown(await self._request(node, "POST", INGEST_PATH + name, batch, {}))
        if not self.path.startswith("/"):
            raise UsageError(f"path: {self.path!r} does not begin with /")
        headers = self.headers
        if kind == "workers":
            known = node.project().workers
            if name not in known:
                raise UsageError(f"to: the project has no Worker {name!r}", hint(name, known))
            headers = {**headers, "host": node.host_of(name)}
        return _shown(await self._request(node, self.method, self.path, self.event, headers))

    def _required(self) -> Any:
        if self.event is UNSET:
            raise UsageError(f"event: missing; {self.to} takes a JSON value")
        return self.event

    async def _request(
        self, node: RunningNode, method: str, path: str, value: Any, headers: Mapping[str, str]
    ) -> NodeReply:
        if value is UNSET:
            return await node.request(method, path, headers, None)
        if isinstance(value, str):
            return await node.request(method, path, headers, value.encode())
        typed = {"content-type": "application/json", **headers}
        return await node.request(method, path, typed, msgspec.json.encode(value))


def _shown(reply: NodeReply) -> dict[str, Any]:
    text = reply.text
    cut = {"characters_left_out": len(text) - BODY_CHARS_MAX} if len(text) > BODY_CHARS_MAX else {}
    shown = {"status": reply.status, "content_type": reply.content_type}
    return {**shown, "body": text[:BODY_CHARS_MAX], **cut}


class TraceEvent(msgspec.Struct, forbid_unknown_fields=True):
    """Find an event by a text in it: every stage of the pipeline that holds it, with times.

    The stages are request, log, exception, tail, pipeline, object, queue and table, in the order
    in which an event passes them. "not searched" names what a limit left out.
    """

    TITLE: ClassVar[str] = "Trace an event"
    READ_ONLY: ClassVar[bool] = True

    text: Annotated[str, Meta(description="part of the event, such as an id; case matters")]

    async def run(self, node: RunningNode) -> Any:
        return _bounded("places", await node.get("/trace", q=self.text))


class WaitForRow(msgspec.Struct, forbid_unknown_fields=True):
    """Run a SELECT statement until it returns a row, and return its rows.

    Pipelines write an object when their window ends, by default after 90 s: `deliver_now` ends all
    windows first and delivers what waits.
    """

    TITLE: ClassVar[str] = "Wait for a row"
    READ_ONLY: ClassVar[bool] = False

    statement: Annotated[str, Meta(description="SELECT with a WHERE, not only count()")]
    timeout_seconds: Annotated[float, Meta(ge=0, le=SECONDS_MAX)] = 30.0
    deliver_now: Annotated[bool, Meta(description="end the windows of all pipelines first")] = False

    async def run(self, node: RunningNode) -> Any:
        if _SELECT.match(self.statement) is None:
            raise UsageError("statement: wait_for_row repeats it, so it must begin with SELECT")
        until = anyio.current_time() + self.timeout_seconds
        if self.deliver_now:
            await node.drain(self.timeout_seconds)
        while not (rows := await node.rows(self.statement)):
            if anyio.current_time() >= until:
                break
            await anyio.sleep(_LOOK_SECONDS)
        if rows:
            return _bounded("rows", rows)
        return {"rows": [], "waited_seconds": self.timeout_seconds, **await _on_the_way(node)}


async def _on_the_way(node: RunningNode) -> dict[str, Any]:
    """The places that an awaited row may still have to pass."""
    flow = await node.get("/flow")
    ends, stats = flow["window_ends_at"], flow["stats"]
    pipelines = [
        {
            "pipeline": name,
            "records": counters["pending"],
            "window_ends_in_seconds": ends.get(name) and round(ends[name] - flow["now"], 1),
        }
        for name, counters in stats["pipelines"].items()
        if counters.get("pending")
    ]
    queues = {name: each["backlog"] for name, each in stats["queues"].items() if each["backlog"]}
    return {"waiting_in_pipelines": pipelines, "waiting_in_queues": queues}


class ListFlows(msgspec.Struct, forbid_unknown_fields=True):
    """List the Workers, streams, pipelines, buckets and queues of the project, and what flows.

    `main` edges are the way of the events, the others calls that a handler may make. The counters
    are those since the start.
    """

    TITLE: ClassVar[str] = "List the flows"
    READ_ONLY: ClassVar[bool] = True

    async def run(self, node: RunningNode) -> Any:
        flow = await node.get("/flow")
        graph = flow["graph"]
        return {
            "entry": graph["entry"]["name"],
            "nodes": [_place(each) for each in graph["nodes"]],
            "edges": [
                {**each, "source": _place(each["source"]), "target": _place(each["target"])}
                for each in graph["edges"]
            ],
            "counters": flow["stats"],
        }


def _place(node: Mapping[str, str]) -> str:
    return f"{node['kind']} {node['name']}"


class ExplainFailure(msgspec.Struct, forbid_unknown_fields=True):
    """Explain the last invocation that failed: event, exception with stack, console lines, cure.

    Also names what else is wrong: sinks that cannot write, dead letters, lost traces, faults that
    are switched on.
    """

    TITLE: ClassVar[str] = "Explain the last failure"
    READ_ONLY: ClassVar[bool] = True

    worker: Annotated[str, Meta(description="name of a Worker; default: all")] = ""
    text: Annotated[str, Meta(description="text in its request, console lines or exception")] = ""

    async def run(self, node: RunningNode) -> Any:
        return await last_failure(node, self.worker, self.text)


class SendAgain(msgspec.Struct, forbid_unknown_fields=True):
    """Send the event of an invocation again to the code as saved now, and compare the outcomes.

    After an edit that shall mend a failure, this shows whether it does. What the handler does is
    real, as the first time.
    """

    TITLE: ClassVar[str] = "Send an event again"
    READ_ONLY: ClassVar[bool] = False

    id: Annotated[str, Meta(description="id of the invocation, from explain_last_failure")]
    message: Annotated[str, Meta(description="id of the only message of a batch to send")] = ""

    async def run(self, node: RunningNode) -> Any:
        return await node.send_again(self.id, self.message)


class RunSql(msgspec.Struct, forbid_unknown_fields=True):
    """Run one ClickHouse statement, also one that changes data, and return its rows."""

    TITLE: ClassVar[str] = "Run SQL"
    READ_ONLY: ClassVar[bool] = False

    statement: Annotated[str, Meta(description="such as SELECT * FROM events LIMIT 10")]

    async def run(self, node: RunningNode) -> Any:
        return _bounded("rows", await node.rows(self.statement))


def _bounded(name: str, values: list[Any]) -> dict[str, Any]:
    """A list under its name, as far as a result may hold it, and the number of further values."""
    shown: list[Any] = []
    left = RESULT_CHARS_MAX
    for value in values:
        left -= len(msgspec.json.encode(value))
        if left < 0 and shown:
            return {name: shown, f"{name}_left_out": len(values) - len(shown)}
        shown.append(value)
    return {name: shown}


TOOLS: dict[str, type[ToolCall]] = {
    "send_event": SendEvent,
    "trace_event": TraceEvent,
    "wait_for_row": WaitForRow,
    "list_flows": ListFlows,
    "explain_last_failure": ExplainFailure,
    "send_again": SendAgain,
    "run_sql": RunSql,
}


def schema_of(tool: type[ToolCall]) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments."""
    _, components = msgspec.json.schema_components([tool])
    schema: dict[str, Any] = components[tool.__name__]
    return {key: value for key, value in schema.items() if key not in {"title", "description"}}


def arguments_of(name: str, given: Mapping[str, Any]) -> ToolCall:
    """The call of a tool; UsageError for an unknown tool or wrong arguments."""
    if name not in TOOLS:
        raise UsageError(f"there is no tool {name!r}", hint(name, TOOLS))
    try:
        return msgspec.convert(given, TOOLS[name])
    except msgspec.ValidationError as error:
        raise UsageError(f"{name}: {error}") from error

"""One invocation in a workerd process: its calls, its log, its report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote_to_bytes

import anyio
import msgspec

from edgesim.clock import Clock
from edgesim.errors import PlatformError
from edgesim.foreign import stops_the_world
from edgesim.isolates.host import weight
from edgesim.isolates.host.budget import budget_here
from edgesim.isolates.host.driver import Host
from edgesim.isolates.javascript import values
from edgesim.isolates.javascript.http import HttpMessage, LostError
from edgesim.isolates.javascript.source_map import SourceMap
from edgesim.isolates.protocol.limits import LOG_BYTES_MAX, MEMORY_EXCEEDED, log_bytes
from edgesim.isolates.protocol.wire import (
    LOST,
    MESSAGE_BYTES_MAX,
    NOT_RUN,
    Call,
    Done,
    Failure,
    Invoke,
    Level,
    Log,
    Respond,
    StreamRef,
)
from edgesim.model import Body, Headers, Stream, iterate
from edgesim.packing import packed

OURS = "x-edgesim-"
BINDING = "x-edgesim-binding"
CALL, VALUE, ERROR = "x-edgesim-call", "x-edgesim-value", "x-edgesim-error"
CF, NOW = "x-edgesim-cf", "x-edgesim-now"
CPU_EXCEEDED = "Worker exceeded CPU time limit."
_WORKERD_BUG = "internal error; reference = "
STACK_CHARS_MAX = 64 * 1024
"""Characters of a stack that are read; the rest would not fit into a trace."""
ENCODING = "content-encoding"

_UnixMilliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e14)]
Entry = tuple[Level, list[Any], _UnixMilliseconds]
"""A console call: level, message, Unix milliseconds."""


class InvocationReport(msgspec.Struct, forbid_unknown_fields=True):
    """A Worker's report of its finished invocation.

    ``exceptions``: name, message, stack; ``diagnostics``: channel, message, Unix milliseconds.
    """

    outcome: Literal["ok", "exception"]
    exceptions: list[tuple[str, str, str | None]]
    logs: list[Entry]
    diagnostics: list[tuple[str, Any, _UnixMilliseconds]] = []
    result: msgspec.Raw = msgspec.Raw(b"null")


_reports = msgspec.json.Decoder(InvocationReport)
_entries = msgspec.json.Decoder(list[Entry])
_Name = Annotated[str, msgspec.Meta(max_length=200)]


class WorkerdInvocation:
    """The platform's side of one invocation.

    ``has_left``: something of it is known outside of its process, so it cannot be run again.
    """

    def __init__(self, worker: str, number: int, invoke: Invoke, host: Host, clock: Clock) -> None:
        self.memory = budget_here().holder(worker, self._evict)
        self.id = f"{number:x}"
        self.invoke = invoke
        self.cpu_ms = 0.0
        self.has_left = False
        self.is_broken = False
        """True if workerd itself failed in it, as it does after changes to JavaScript's objects."""
        self.scope = anyio.CancelScope()
        """The invocation's stay in its process."""
        self.reported: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._host = host
        self._clock = clock
        self._calls = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._logs: list[Log] = []
        self._log_bytes = 0

    def begin(self) -> None:
        """Prepare to run, for the first time or again in another process."""
        self._logs.clear()
        self._log_bytes = 0
        self.cpu_ms = 0.0
        self.reported = asyncio.get_running_loop().create_future()
        self.invoke.now, self.invoke.steady = self._clock.now(), self._clock.steady()

    def head(self) -> dict[str, Any]:
        """The part of the event that the guest reads; with a seed and the time if it is virtual."""
        invoke = self.invoke
        head = {"id": self.id, "handler": invoke.handler, "entrypoint": invoke.entrypoint}
        if not stops_the_world():
            return head
        seed = self._clock.random.getrandbits(32) if invoke.seed is None else invoke.seed
        return head | {"seed": seed, "now": self._now()}

    def _now(self) -> list[float]:
        """Unix milliseconds, and the steady clock's."""
        return [self._clock.now() * 1000, self._clock.steady() * 1000]

    # --- what the isolate asks; ValueError for what no isolate says ---

    async def call(self, request: HttpMessage) -> HttpMessage:
        """Run a call of a binding."""
        head = request.header(CALL)
        if head is None:
            async with self.collected(request.body) as data:
                binding, method, args, options = _call_of(data)
                return await self._answer(binding, method, args, options, with_body=False)
        binding, method, args, options = _call_of(unquote_to_bytes(head))
        if method != "get":
            args = [*args, request.body]
        return await self._answer(binding, method, args, options, with_body=True)

    @asynccontextmanager
    async def collected(self, body: Body) -> AsyncIterator[bytes]:
        """The JSON in a body, counted until the end with the memory of its values.

        ValueError if they take too much.
        """
        size = 0
        try:
            chunks = []
            async for chunk in iterate(body):
                await self._occupy(len(chunk), of=size)
                size += len(chunk)
                chunks.append(chunk)
            data = b"".join(chunks)
            chunks.clear()
            values_bytes = weight.of_json(data)
            await self._occupy(values_bytes, of=size)
            size += values_bytes
            yield data
        finally:
            self.memory.drop(size)
            if isinstance(body, Stream):
                await body.aclose()

    async def _occupy(self, size: int, of: int) -> None:
        if of + size > MESSAGE_BYTES_MAX:
            raise ValueError(f"a message whose values take more than {MESSAGE_BYTES_MAX} bytes")
        await self.memory.room(size)

    def _evict(self) -> None:
        self.end(memory_exceeded())
        self.scope.cancel()

    async def fetch(self, request: HttpMessage) -> HttpMessage:
        """Send a request through a service binding, or to the outside."""
        self.leave()
        wire = {
            "method": request.method,
            "url": request.target,
            "headers": [each for each in request.headers if not each[0].startswith(OURS)],
            "body": request.body,
            "redirect": "manual",
        }
        binding = unquote_to_bytes(request.header(BINDING) or "").decode("utf-8", "replace")
        try:
            found = await self._call(binding, "fetch", [wire], {})
        except PlatformError as error:
            text = quote(msgspec.json.encode({"name": error.name, "message": error.message}))
            return HttpMessage([(ERROR, text), *self._times()], status=500)
        headers = [each for each in found["headers"] if not each[0].lower().startswith(OURS)]
        encoding = next((value for name, value in headers if name.lower() == ENCODING), None)
        # workerd decompresses it by this header.
        body = packed(self._given(found["body"]), encoding, even_empty=True)
        headers += self._times()
        return HttpMessage(headers, body, status=found["status"], reason=found["statusText"] or "")

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Make the current task one of the invocation's, which end with it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    def cancel_calls(self) -> None:
        """Cancel the calls that are unanswered: the invocation has ended."""
        for task in self._tasks:
            task.cancel()

    def take_logs(self, data: bytes) -> None:
        """Record console calls."""
        self._record(_decoded(_entries, data))

    def finish(self, data: bytes, sources: SourceMap) -> None:
        """Take the report of the finished invocation."""
        report: InvocationReport = _decoded(_reports, data)
        self._record(report.logs)
        failures = [
            Failure(
                name, message, None if stack is None else sources.mapped(stack[:STACK_CHARS_MAX])
            )
            for name, message, stack in report.exceptions
        ]
        result = values.loads(bytes(report.result))
        self.is_broken |= any(each.message.startswith(_WORKERD_BUG) for each in failures)
        published = [(channel, message, ms / 1000) for channel, message, ms in report.diagnostics]
        self.end(Done(report.outcome, failures, result, diagnostics=published))

    # --- what the process does ---

    def respond(self, response: HttpMessage, encoded: bool) -> None:
        """Hand on the fetch handler's response; ValueError if it is not a valid one."""
        self.leave()
        headers = [each for each in response.headers if not each[0].startswith(OURS)]
        text = "" if response.reason == _phrase(response.status) else response.reason
        self._host.respond(Respond(response.status, headers, response.body, text, encoded))

    def leave(self) -> None:
        """Something of the invocation is known outside from now on."""
        self.has_left = True
        for log in self._logs:
            self._host.log(log)
        self._logs.clear()

    def end(self, done: Done) -> None:
        """End the invocation, unless it has ended."""
        if not self.reported.done():
            self.reported.set_result(done)

    def abandon(self) -> None:
        """Let the wait for the report end: the process has ended."""
        if not self.reported.done():
            self.reported.set_exception(LostError("the process ended"))
            self.reported.exception()  # nobody may be waiting for it

    def settled(self, done: Done) -> Done:
        """The Done as the runtime gets it; logs of a run that will be repeated are dropped."""
        if done.blameless and not self.has_left:
            done.fault = NOT_RUN
            self._logs.clear()
        self.leave()
        done.cpu_ms = self.cpu_ms
        self.memory.close()
        return done

    def body(self, body: Any) -> Body:
        """A body of an event, from its form on the wire."""
        if isinstance(body, StreamRef):
            self.leave()  # it can be read once
        return self._given(body)

    def _given(self, body: Any) -> Body:
        if isinstance(body, StreamRef):
            return Stream(self._read(body.id), body.length)
        return bytes(body or b"")

    async def _read(self, stream: int) -> AsyncIterator[bytes]:
        while chunk := await self._call("", "read", [stream], {}):
            yield chunk

    async def _answer(
        self, binding: str, method: str, args: list[Any], options: dict[str, Any], with_body: bool
    ) -> HttpMessage:
        self.leave()
        try:
            value = await self._call(binding, method, args, options)
        except PlatformError as error:
            failed = {"error": {"name": error.name, "message": error.message}}
            return HttpMessage(self._times(), msgspec.json.encode(failed), status=200)
        if with_body and isinstance(value, dict) and "body" in value:
            body = self._given(value["body"])
            shown = quote(values.dumps(value | {"body": True}))
            return HttpMessage([(VALUE, shown), *self._times()], body, status=200)
        return HttpMessage(self._times(), values.dumps({"value": value}), status=200)

    def _times(self) -> Headers:
        """The header of a reply that sets the isolate's clock, where time is virtual."""
        return [(NOW, ",".join(map(str, self._now())))] if stops_the_world() else []

    async def _call(
        self, binding: str, method: str, args: list[Any], options: dict[str, Any]
    ) -> Any:
        self._calls += 1
        return await self._host.call(Call(self._calls, binding, method, args, options))

    def _record(self, entries: list[Entry]) -> None:
        for level, message, ms in entries:
            if self._log_bytes > LOG_BYTES_MAX:
                return  # one entry beyond the budget is kept, so that the trace is truncated
            self._log_bytes += log_bytes(message)
            self._logs.append(Log(level, message, ms / 1000))
        if self.has_left:
            self.leave()


def cpu_exceeded() -> Done:
    """The Done of an invocation that used up its CPU time."""
    return Done("exceededCpu", [Failure("Error", CPU_EXCEEDED)])


def memory_exceeded() -> Done:
    """The Done of an invocation that used up its memory."""
    return Done("exceededMemory", [Failure("Error", MEMORY_EXCEEDED)])


def lost(reason: str) -> Done:
    """The Done of an invocation that ended by no fault of its own."""
    return Done("internalError", [Failure("Error", reason)], fault=LOST)


def _call_of(data: bytes) -> tuple[str, str, list[Any], dict[str, Any]]:
    try:
        with weight.uncollected():
            value = values.loads(data)
        call = msgspec.convert(value, tuple[_Name, _Name, list[Any], dict[str, Any]])
    except msgspec.ValidationError as error:
        raise ValueError(f"not a call: {error}") from error
    if not call[0] and call[1] == "fetch":
        raise ValueError("a fetch is a request of its own")
    return call


def _decoded(decoder: msgspec.json.Decoder[Any], data: bytes) -> Any:
    try:
        with weight.uncollected():
            return decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not a report: {error}") from error


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""

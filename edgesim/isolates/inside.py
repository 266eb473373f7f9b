"""The inside of an isolate: one invocation, from Invoke to Done.

The same code serves every level; what differs is the Channel: a socket and an event loop of the
isolate's own (turns.py), or calls within the platform's process (inline.py).  It imports the SDK by
its public name, so it must be loaded only where ``edgesim/sdk`` is on ``sys.path``.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import itertools
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from pyodide.ffi import JsException, to_proxy
from pyodide.http import AbortError
from workers._convert import from_wire, to_wire
from workers._entrypoint import Context, MessageBatch
from workers._http import FetchResponse
from workers._runtime import current, current_env

from edgesim.isolates.wire import Call, Done, Failure, Frame, Invoke, Log, Reply, Respond
from workers import Request, WorkerEntrypoint

WAIT_UNTIL_SECONDS = 30.0
QUEUE_SECONDS = 15 * 60.0
LATE = (
    "waitUntil() tasks did not complete within the allowed time after invocation end and have been "
    "cancelled."
)
_PLATFORM_FOLDER = str(Path(__file__).parents[1])


class Channel(Protocol):
    """The isolate's one way out."""

    def send(self, frame: Frame) -> None:
        """A frame that wants no answer."""

    def ask(self, call: Call) -> Awaitable[Reply]:
        """A Call and its Reply."""


class Serving:
    """The running invocation as the SDK sees it (workers._runtime.Invocation)."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._ids = itertools.count(1)
        self.background: list[asyncio.Future[Any]] = []

    async def call(
        self, binding: str, method: str, args: list[Any], options: dict[str, Any] | None = None
    ) -> Any:
        """Ask the platform; raises JsException or AbortError with what it answered."""
        reply = await self._channel.ask(Call(next(self._ids), binding, method, args, options or {}))
        if reply.error is None:
            return reply.value
        if reply.error.name == "AbortError":
            raise AbortError(reply.error.message)
        raise JsException(reply.error.name, reply.error.message)

    def log(self, level: str, message: list[Any]) -> None:
        """One console call."""
        self._channel.send(Log(level, message))

    def respond(self, response: Respond) -> None:
        """The fetch handler's response, at once."""
        self._channel.send(response)

    def wait_until(self, work: Awaitable[Any]) -> None:
        """Keep ``work`` in view until it is done."""
        self.background.append(asyncio.ensure_future(work))


class ConsoleStream(io.TextIOBase):
    """stdout or stderr of worker code: each finished line is one console call of one string.

    Outside an invocation (module import) lines go to ``fallback``: they are in no trace.
    """

    def __init__(self, level: str, fallback: Any) -> None:
        self._level = level
        self._fallback = fallback
        self._open_line = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        invocation = current.get(None)
        if invocation is None:
            return int(self._fallback.write(text))
        *lines, self._open_line = (self._open_line + text).split("\n")
        for line in lines:
            invocation.log(self._level, [line])
        return len(text)

    def flush(self) -> None:
        if current.get(None) is None:
            self._fallback.flush()


def entrypoint(module: ModuleType) -> type[WorkerEntrypoint]:
    """The module's ``Default`` class; ImportError that says what is wrong with it."""
    default = getattr(module, "Default", None)
    if default is None:
        raise ImportError("no class Default(WorkerEntrypoint) in the module that `main` names")
    if not (isinstance(default, type) and issubclass(default, WorkerEntrypoint)):
        raise ImportError("Default is not a subclass of workers.WorkerEntrypoint")  # noqa: TRY004
    return default


def handlers_of(entry: type[WorkerEntrypoint]) -> list[str]:
    """Names of the platform's handlers that the class has."""
    return [name for name in HANDLERS if name != "rpc" and callable(getattr(entry, name, None))]


async def serve(invoke: Invoke, entry: type[WorkerEntrypoint], env: Any, channel: Channel) -> Done:
    """Run the handler and its waitUntil work.  Never raises for what worker code does."""
    started = time.thread_time()
    serving = Serving(channel)
    current.set(serving)
    current_env.set(env)
    done = Done()
    try:
        instance = entry(Context(), env)
        await HANDLERS[invoke.handler](instance, invoke.event, serving, done)
    except BaseException as error:  # noqa: BLE001 (SystemExit too ends only its own invocation)
        _record(done, error)
    await _finish_background(serving, done, invoke.handler)
    done.cpu_ms = (time.thread_time() - started) * 1000
    return done


async def _fetch(instance: Any, event: Any, serving: Serving, done: Done) -> None:
    response = await _call(instance.fetch, Request._from_wire(event))
    if not isinstance(response, FetchResponse):
        raise TypeError(
            "Incorrect type for Promise: the Promise did not resolve to 'Response'. "
            f"(fetch returned {type(response).__name__})"
        )
    wire = response._to_wire()
    serving.respond(Respond(wire["status"], wire["headers"], wire["body"]))


async def _queue(instance: Any, event: Any, serving: Serving, done: Done) -> None:
    batch = MessageBatch(event)
    try:
        await _call(instance.queue, batch, None, None)
    finally:
        done.result = batch._result()


async def _tail(instance: Any, event: Any, serving: Serving, done: Done) -> None:
    await _call(instance.tail, [to_proxy(item) for item in event], None, None)


async def _scheduled(instance: Any, event: Any, serving: Serving, done: Done) -> None:
    await _call(instance.scheduled, to_proxy(event), None, None)


async def _rpc(instance: Any, event: Any, serving: Serving, done: Done) -> None:
    name = event["method"]
    method = None if name.startswith("_") else getattr(type(instance), name, None)
    if method is None or name in HANDLERS:
        raise TypeError(f'The RPC receiver does not implement the method "{name}".')
    arguments = [from_wire(argument) for argument in event["args"]]
    done.result = to_wire(await _call(getattr(instance, name), *arguments))


HANDLERS: dict[str, Callable[[Any, Any, Serving, Done], Awaitable[None]]] = {
    "fetch": _fetch,
    "queue": _queue,
    "tail": _tail,
    "scheduled": _scheduled,
    "rpc": _rpc,
}


async def _call(handler: Callable[..., Any], *args: Any) -> Any:
    """Handlers may be plain functions too."""
    result = handler(*args)
    return await result if inspect.isawaitable(result) else result


async def _finish_background(serving: Serving, done: Done, handler: str) -> None:
    limit = QUEUE_SECONDS if handler == "queue" else WAIT_UNTIL_SECONDS
    deadline = asyncio.get_running_loop().time() + limit
    settled = 0
    while settled < len(serving.background):  # waitUntil work may call waitUntil
        pending = serving.background[settled:]
        settled = len(serving.background)
        remaining = deadline - asyncio.get_running_loop().time()
        late = (await asyncio.wait(pending, timeout=max(remaining, 0)))[1]
        for work in late:
            work.cancel()
        if late:
            serving.log("warn", [LATE])
            await asyncio.wait(late)
        for work in pending:
            if not work.cancelled() and (error := work.exception()) is not None:
                _record(done, error)


def _record(done: Done, error: BaseException) -> None:
    done.outcome = "exception"
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PLATFORM_FOLDER):
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace)).rstrip()
    done.exceptions.append(Failure("PythonError", text, text))

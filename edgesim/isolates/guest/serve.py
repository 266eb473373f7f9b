"""Run one invocation inside an isolate, from Invoke to Done.

The same code serves every isolation level.  Only the Channel differs: a socket with an event loop
of the isolate's own (jailed_loop.py), or calls within the platform's process (inline.py).  This
module imports the SDK by its public name, so ``edgesim/sdk`` must be on ``sys.path``.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import itertools
import traceback
from collections.abc import Awaitable, Callable
from functools import cached_property
from pathlib import Path
from random import Random
from types import CoroutineType
from typing import Any, Protocol

from pyodide.ffi import JsException
from pyodide.http import AbortError
from workers._calling import relaxed
from workers._convert import from_wire, refuse, to_wire
from workers._entrypoint import Context, MessageBatch
from workers._events import ScheduledController, TraceItem
from workers._http import handler_response
from workers._runtime import current, current_env

from edgesim.isolates.guest.clock_and_random import new_random
from edgesim.isolates.guest.entrypoints import Entrypoints, RefusedCall, rpc_method
from edgesim.isolates.guest.memory_files import FileSystem
from edgesim.isolates.protocol.limits import (
    CANCEL_SECONDS,
    EVENT_SECONDS,
    LATE,
    LOG_BYTES_MAX,
    WAIT_UNTIL_SECONDS,
    log_bytes,
)
from edgesim.isolates.protocol.unsendable import shown
from edgesim.isolates.protocol.wire import (
    Call,
    Done,
    Failure,
    Frame,
    Invoke,
    Log,
    Reply,
    Respond,
)
from workers import Request

NO_FETCH = "Handler does not export a fetch() function."
_PLATFORM_FOLDER = str(Path(__file__).parents[2])


class CpuLimitExceeded(BaseException):
    """Raised in worker code that has used up its CPU time; the traceback shows where."""


class Channel(Protocol):
    """Connection of one invocation to the platform."""

    def now(self) -> float:
        """Return the platform's wall clock (Unix seconds) as of its last message."""

    def steady(self) -> float:
        """Return the platform's steady clock (Unix seconds), which is never set, likewise."""

    def sleep(self, seconds: float) -> None:
        """Block the whole isolate, as ``time.sleep`` does."""

    def send(self, frame: Frame) -> None:
        """Send a frame that has no reply."""

    def ask(self, call: Call) -> Awaitable[Reply]:
        """Send a Call; returns an awaitable of its Reply."""


class Serving:
    """The running invocation as the SDK sees it (workers._runtime.Invocation)."""

    def __init__(self, channel: Channel, seed: int | None) -> None:
        self.seeded = seed is not None
        self.background: list[asyncio.Future[Any]] = []
        self.open_lines: dict[str, str] = {}
        self.data_points = 0
        self._channel = channel
        self._seed = seed
        self._ids = itertools.count(1)
        self._log_bytes = 0

    @cached_property
    def random(self) -> Random:
        """The invocation's own source of randomness."""
        return new_random(self._seed)

    @cached_property
    def files(self) -> FileSystem:
        """The invocation's own files."""
        return FileSystem()

    def now(self) -> float:
        """Return the platform's wall clock in Unix seconds."""
        return self._channel.now()

    def steady(self) -> float:
        """Return the platform's steady clock, which is never set, in Unix seconds."""
        return self._channel.steady()

    def sleep(self, seconds: float) -> None:
        """Implement ``time.sleep``: block the whole isolate."""
        self._channel.sleep(seconds)

    async def call(
        self, binding: str, method: str, args: list[Any], options: dict[str, Any] | None = None
    ) -> Any:
        """Call the platform; an error in its reply is raised as JsException or AbortError."""
        reply = await self._channel.ask(Call(next(self._ids), binding, method, args, options or {}))
        if reply.error is None:
            return reply.value
        if reply.error.name == "AbortError":
            raise AbortError(reply.error.message)
        raise JsException(reply.error.name, reply.error.message)

    def post(self, binding: str, method: str, args: list[Any]) -> None:
        """Send a call whose reply nobody reads; the invocation lasts until the reply is there."""
        call = Call(next(self._ids), binding, method, args)
        self.background.append(asyncio.ensure_future(self._channel.ask(call)))

    def log(self, level: str, message: list[Any]) -> None:
        """Send one console call; drop it if the trace's budget is already used up."""
        if self._log_bytes > LOG_BYTES_MAX:
            return
        try:
            self._log_bytes += log_bytes(message)
        except ValueError:
            message = shown(message)
            self._log_bytes += log_bytes(message)
        self._channel.send(Log(level, [_cut(each) for each in message], self.now()))

    def respond(self, response: Respond) -> None:
        """Send the fetch handler's response immediately."""
        self._channel.send(response)

    def wait_until(self, work: Awaitable[Any]) -> None:
        """Start ``work``; the invocation lasts until it is done, within a time limit."""
        self.background.append(asyncio.ensure_future(_without_exit(work)))


async def _without_exit(work: Awaitable[Any]) -> Any:
    """Await work; turn SystemExit, which would stop the whole event loop, into RuntimeError."""
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _cut(part: Any) -> Any:
    """Cut one part of a log line to the first length that overflows the trace's budget."""
    return part[: LOG_BYTES_MAX + 1] if isinstance(part, str) else part


class ConsoleStream(io.TextIOBase):
    """stdout or stderr of worker code: each complete line becomes one console call.

    Outside an invocation (during import) text goes to ``fallback`` and appears in no trace.
    """

    def __init__(self, level: str, fallback: Any) -> None:
        self._level = level
        self._fallback = fallback

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        invocation = current.get(None)
        if invocation is None:
            return int(self._fallback.write(text))
        level, begun = self._level, invocation.open_lines
        if text == "\n":  # the last write of a print call
            invocation.log(level, [begun.pop(level, "")])
            return 1
        if "\n" not in text:
            begun[level] = begun.get(level, "") + text
            return len(text)
        *lines, rest = (begun.get(level, "") + text).split("\n")
        for line in lines:
            invocation.log(level, [line])
        begun[level] = rest
        return len(text)

    def flush(self) -> None:
        if current.get(None) is None:
            self._fallback.flush()


async def serve(
    invoke: Invoke,
    load: Callable[[], Entrypoints],
    new_env: Callable[[], Any],
    serving: Serving,
) -> Done:
    """Run the handler and its waitUntil work.  Worker code's exceptions are in the Done.

    ``load`` returns the Worker's classes, ``new_env`` its env.  In a process that serves more than
    one invocation, they load the module and create the bindings again.
    """
    task = asyncio.current_task()
    try:
        return await _serve(invoke, load, new_env, serving)
    except GeneratorExit as error:
        # Raised by worker code: a task that ended with it raises it in every task awaiting it.
        if asyncio._get_running_loop() is not None and asyncio.current_task() is task:
            return failed(error)
        raise  # garbage collection closes this coroutine in the middle of another invocation


async def _serve(
    invoke: Invoke,
    load: Callable[[], Entrypoints],
    new_env: Callable[[], Any],
    serving: Serving,
) -> Done:
    done = Done()
    env = new_env()
    current_env.set(env)
    try:
        kind = load().get(invoke.entrypoint)
        if kind is None:
            raise TypeError(f'The Worker has no entrypoint "{invoke.entrypoint}".')
        current.set(serving)
        await HANDLERS[invoke.handler](kind(Context(), env), invoke.event, serving, done)
    except GeneratorExit:
        raise
    except BaseException as error:  # noqa: BLE001 (SystemExit too ends only its own invocation)
        current.set(serving)
        record(done, error)
    if done.outcome in {"ok", "exception"}:
        await _finish_background(serving, done, invoke.handler)
    return done


async def _fetch(instance: Any, event: Any, serving: Serving, done: Done) -> None:
    if not callable(getattr(instance, "fetch", None)):
        raise JsException("Error", NO_FETCH)
    request = Request._from_wire(event)
    response = handler_response(await _call(*relaxed(instance.fetch, request, None, None)))
    await response._settle()
    wire = response._to_wire()
    text = wire["statusText"]
    serving.respond(Respond(wire["status"], wire["headers"], wire["body"], text))


async def _queue(instance: Any, event: Any, serving: Serving, done: Done) -> None:
    batch = MessageBatch(event)
    try:
        refuse(await _call(instance.queue, batch, None, None))
    finally:
        done.result = batch._result()


async def _tail(instance: Any, event: Any, serving: Serving, done: Done) -> None:
    refuse(await _call(instance.tail, [TraceItem(item) for item in event], None, None))


async def _scheduled(instance: Any, event: Any, serving: Serving, done: Done) -> None:
    controller = ScheduledController(event)
    try:
        refuse(await _call(instance.scheduled, controller, None, None))
    finally:
        done.result = controller._no_retry


async def _rpc(instance: Any, event: Any, serving: Serving, done: Done) -> None:
    method = rpc_method(instance, event["method"])
    arguments = [from_wire(argument) for argument in event["args"]]
    done.result = to_wire(await _call(method, *arguments))


HANDLERS: dict[str, Callable[[Any, Any, Serving, Done], Awaitable[None]]] = {
    "fetch": _fetch,
    "queue": _queue,
    "tail": _tail,
    "scheduled": _scheduled,
    "rpc": _rpc,
}


async def _call(handler: Callable[..., Any], *args: Any) -> Any:
    """Call a handler, which may be a coroutine function or a plain function."""
    result = handler(*args)
    if isinstance(result, CoroutineType) or inspect.isawaitable(result):
        return await result
    return result


async def _finish_background(serving: Serving, done: Done, handler: str) -> None:
    limit = EVENT_SECONDS if handler == "queue" else WAIT_UNTIL_SECONDS
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
            await asyncio.wait(late, timeout=CANCEL_SECONDS)
        for work in pending:
            if work.done() and not work.cancelled() and (error := work.exception()) is not None:
                record(done, error)


def failed(error: BaseException) -> Done:
    """Return the Done of an invocation that ended by an exception outside its handler."""
    done = Done()
    record(done, error)
    return done


def record(done: Done, error: BaseException) -> None:
    """Record an exception in the Done.  Its class may be defined by worker code."""
    kind = type(error)  # not __class__ or another attribute that the class can override
    trace = _TRACEBACK.__get__(error)
    if issubclass(kind, RefusedCall) and isinstance(error, RefusedCall):
        done.outcome = "exception"
        done.exceptions.append(Failure(error.name, error.message, str(error)))
        return
    if issubclass(kind, CpuLimitExceeded):
        done.outcome = "exceededCpu"
    elif issubclass(kind, MemoryError):
        done.outcome = "exceededMemory"
        # The frames refer to the objects that filled the memory; formatting needs some memory.
        traceback.clear_frames(trace)
    elif done.outcome == "ok":
        done.outcome = "exception"
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PLATFORM_FOLDER):
        trace = trace.tb_next
    try:
        text = "".join(traceback.format_exception(kind, error, trace)).rstrip()
    except BaseException:  # noqa: BLE001 (formatting runs worker code, which may raise anything)
        text = f"{kind.__name__}: <exception that cannot be shown>"
    done.exceptions.append(Failure("PythonError", text, text))


_TRACEBACK: Any = vars(BaseException)["__traceback__"]

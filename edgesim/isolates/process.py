"""The ``process`` level: every invocation in a fresh process, forked from its Worker's zygote.

The platform makes the channel and sends its far end to the zygote, so an isolate can be written to
before it is born.  A few forks stand by, so that a fork's price is paid off the path of a request;
each is used once.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import structlog
from anyio.abc import TaskGroup, UNIXSocketStream

from edgesim.clock import Clock
from edgesim.errors import WorkerLoadError
from edgesim.isolates.driver import Host, Isolates, answer
from edgesim.isolates.wire import (
    Boot,
    Booted,
    Call,
    Done,
    Exited,
    Failure,
    Forked,
    Frame,
    FrameReader,
    Invoke,
    Log,
    Respond,
    encode,
)
from edgesim.model import WorkerSpec

DETERMINISTIC = False
STANDBY_MIN = 2
STANDBY_MAX = 16
ISOLATES_MAX = 64
"""Isolates of one Worker at a time; further invocations wait their turn."""
GOODBYE_SECONDS = 5.0
DRAIN_SECONDS = 30.0
"""How long invocations in flight go on when their Worker is closed (the platform: about 30 s)."""
BOOT_SECONDS = 30.0
READ_BYTES = 1 << 16
_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError)

log = structlog.get_logger()


class _Isolate:
    """The platform's end of one fork."""

    def __init__(self, number: int, stream: UNIXSocketStream) -> None:
        self.stream = stream
        self.number = number
        self.pid: int | None = None
        self.status: int | None = None
        self.ended = anyio.Event()
        self._doomed = False

    def born(self, pid: int) -> None:
        """The zygote has forked it."""
        self.pid = pid
        if self._doomed:
            self.kill()

    def kill(self) -> None:
        """End it at once, or as soon as it is born."""
        self._doomed = True
        if self.pid is not None and self.status is None:
            with suppress(ProcessLookupError):  # it ended by itself, and the news is on its way
                os.kill(self.pid, signal.SIGKILL)


class ProcessIsolates(Isolates):
    """The forks of one zygote."""

    def __init__(self, spec: WorkerSpec, clock: Clock, control: UNIXSocketStream) -> None:
        self._name = spec.name
        self._clock = clock
        self._control = control
        self._count = 0
        self._alive: dict[int, _Isolate] = {}
        self._standby: deque[_Isolate] = deque()
        self._standby_target = STANDBY_MIN
        self._wanted = anyio.Event()
        self._slots = anyio.CapacityLimiter(ISOLATES_MAX)
        self._settled = anyio.Event()
        self.handlers = frozenset[str]()
        self.lost = anyio.Event()
        self._dismissed = False

    async def invoke(self, invoke: Invoke, host: Host) -> Done:
        """Run it in the next isolate that stands by."""
        try:
            return await self._invoke(invoke, host)
        finally:
            self._settled.set()

    async def _invoke(self, invoke: Invoke, host: Host) -> Done:
        async with self._slots:
            try:
                isolate = await self._take()
            except _GONE:
                message = f"The zygote of Worker {self._name} is gone; another is being started."
                return Done("internalError", [Failure("Error", message)])
            try:
                return await _Conversation(isolate.stream, host, self._clock).run(invoke)
            except (*_GONE, anyio.EndOfStream, ValueError) as error:
                isolate.kill()
                return await self._died(isolate, error)
            except anyio.get_cancelled_exc_class():
                isolate.kill()
                raise
            finally:
                with anyio.CancelScope(shield=True):
                    await isolate.stream.aclose()

    async def _take(self) -> _Isolate:
        if len(self._standby) <= 1:
            self._standby_target = min(self._standby_target * 2, STANDBY_MAX)
        isolate = self._standby.popleft() if self._standby else await self._fork()
        self._wanted.set()
        return isolate

    async def _fork(self) -> _Isolate:
        ours, theirs = socket.socketpair()
        with theirs:
            self._count += 1
            isolate = _Isolate(self._count, await UNIXSocketStream.from_socket(ours))
            self._alive[isolate.number] = isolate
            await self._control.send_fds(isolate.number.to_bytes(4, "big"), [theirs.fileno()])
        return isolate

    async def _died(self, isolate: _Isolate, error: Exception) -> Done:
        with anyio.move_on_after(5):
            await isolate.ended.wait()
        message = (
            f"The isolate ended before its invocation did: {_describe(isolate.status, error)}."
        )
        return Done("internalError", [Failure("Error", message)])

    async def keep_standby(self) -> None:
        """Refill the pool whenever it was drawn from, until the zygote is gone."""
        with suppress(*_GONE):
            while True:
                self._wanted = anyio.Event()
                while len(self._standby) < self._standby_target and not self._dismissed:
                    try:
                        self._standby.append(await self._fork())
                    except OSError as error:  # out of descriptors, most likely: it may pass
                        log.error("cannot fork an isolate", worker=self._name, error=str(error))
                        await anyio.sleep(1)
                await self._wanted.wait()

    async def hear_zygote(self, reader: FrameReader) -> None:
        """Follow births and deaths, until the zygote is gone."""
        try:
            while True:
                for frame in reader.feed(await self._control.receive(READ_BYTES)):
                    self._note(frame)
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            if not self._dismissed:
                log.error("zygote ended", worker=self._name)
        finally:
            self.lost.set()
            for isolate in list(self._alive.values()):
                isolate.ended.set()

    def _note(self, frame: Frame) -> None:
        if isinstance(frame, Forked):
            self._alive[frame.number].born(frame.pid)
        elif isinstance(frame, Exited):
            isolate = self._alive.pop(frame.number)
            isolate.status = frame.status
            isolate.ended.set()

    async def drain(self) -> None:
        """Wait until no invocation is in flight."""
        while self._slots.borrowed_tokens:
            self._settled = anyio.Event()
            await self._settled.wait()

    def kill_all(self) -> None:
        """End what still runs: it had its time."""
        for isolate in list(self._alive.values()):
            isolate.kill()

    async def dismiss(self) -> None:
        """Let the forks go that nobody used, and the zygote, which ends ``hear_zygote``."""
        while self._standby:
            await self._standby.popleft().stream.aclose()
        # The zygote hangs up, not we: to close or cancel under a reader to whom something has just
        # arrived is an InvalidStateError in anyio's stream.
        self._dismissed = True
        with suppress(OSError):  # it may be gone already
            await self._control.send_eof()
        with anyio.move_on_after(GOODBYE_SECONDS):
            await self.lost.wait()


class _Conversation:
    """One invocation over one channel: frames in, answers out, until Done."""

    def __init__(self, stream: UNIXSocketStream, host: Host, clock: Clock) -> None:
        self._stream = stream
        self._host = host
        self._clock = clock
        self._sending = anyio.Lock()

    async def run(self, invoke: Invoke) -> Done:
        """EndOfStream or BrokenResourceError when the isolate dies, ValueError for garbage."""
        await self._stream.send(encode(invoke))
        async with anyio.create_task_group() as calls:
            ending = await self._hear(calls)
            calls.cancel_scope.cancel()
        if isinstance(ending, Done):
            return ending
        raise ending  # outside the task group, which would wrap it

    async def _hear(self, calls: TaskGroup) -> Done | Exception:
        reader = FrameReader()
        try:
            while True:
                for frame in reader.feed(await self._stream.receive(READ_BYTES)):
                    if isinstance(frame, Done):
                        return frame
                    self._take(frame, calls)
        except (*_GONE, anyio.EndOfStream, ValueError) as error:
            return error

    def _take(self, frame: Frame, calls: TaskGroup) -> None:
        match frame:
            case Log():
                self._host.log(frame)
            case Respond():
                self._host.respond(frame)
            case Call():
                calls.start_soon(self._answer, frame)
            case _:
                raise ValueError(f"unexpected {type(frame).__name__} from an isolate")

    async def _answer(self, call: Call) -> None:
        reply = await answer(call, self._host, self._clock)
        async with self._sending:
            try:
                await self._stream.send(encode(reply))
            except _GONE:
                return  # the isolate is gone; whoever reads from it will say so


def _describe(status: int | None, error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    if status is None:
        return "it is gone"
    if os.WIFSIGNALED(status):
        return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"


@asynccontextmanager
async def open_isolates(spec: WorkerSpec, clock: Clock) -> AsyncIterator[ProcessIsolates]:
    """Start the Worker's zygote, load the module, fork the first standbys."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [
            *(sys.executable, "-P", "-s", "-m", "edgesim.isolates.zygote"),
            str(theirs.fileno()),
        ]
        zygote = await anyio.open_process(
            command,
            stdin=None,
            stdout=None,
            stderr=None,
            pass_fds=[theirs.fileno()],
            env=_ENVIRONMENT,
        )
    async with zygote, await UNIXSocketStream.from_socket(ours) as control:
        isolates = ProcessIsolates(spec, clock, control)
        reader = FrameReader()
        booted = await _boot(spec, control, reader)
        isolates.handlers = frozenset(booted.handlers)
        async with anyio.create_task_group() as hearing:
            hearing.start_soon(isolates.hear_zygote, reader)
            async with anyio.create_task_group() as refilling:
                refilling.start_soon(isolates.keep_standby)
                try:
                    yield isolates
                finally:
                    with anyio.CancelScope(shield=True):
                        with anyio.move_on_after(DRAIN_SECONDS):
                            await isolates.drain()
                        isolates.kill_all()
                        refilling.cancel_scope.cancel()
                        await isolates.dismiss()
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(GOODBYE_SECONDS):
                await zygote.wait()
            with suppress(ProcessLookupError):
                zygote.kill()


# The hash seed is production's; the rest of the platform's environment is no business of worker
# code.
_ENVIRONMENT = {
    "PYTHONHASHSEED": "111",
    "PYTHONUTF8": "1",
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
}


async def _boot(spec: WorkerSpec, control: UNIXSocketStream, reader: FrameReader) -> Booted:
    bindings = [(each.name, each.kind, each.value) for each in spec.bindings]
    await control.send(encode(Boot(spec.name, spec.main, bindings)))
    frames: list[Frame] = []
    try:
        with anyio.fail_after(BOOT_SECONDS):
            while not frames:
                frames = reader.feed(await control.receive(READ_BYTES))
    except TimeoutError:
        raise WorkerLoadError(
            f"worker {spec.name}: {spec.main} was not imported within {BOOT_SECONDS:.0f} s"
        ) from None
    except ValueError as error:
        raise WorkerLoadError(f"worker {spec.name}: {spec.main} wrote {error}") from None
    except anyio.EndOfStream:
        raise WorkerLoadError(
            f"worker {spec.name}: its process ended while it imported {spec.main}"
        ) from None
    booted = frames[0]
    if not isinstance(booted, Booted):
        raise WorkerLoadError(f"worker {spec.name}: unexpected {type(booted).__name__} at start")
    if booted.error is not None:
        raise WorkerLoadError(f"worker {spec.name}: {booted.error}")
    return booted

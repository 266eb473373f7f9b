"""One running workerd process and the invocations in it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import anyio
import msgspec
import structlog

from edgesim import foreign
from edgesim.errors import WorkerLoadError
from edgesim.isolates.javascript import values
from edgesim.isolates.javascript.http import (
    ClientConnection,
    HttpMessage,
    LostError,
    ServerConnection,
)
from edgesim.isolates.javascript.invocation import (
    CF,
    CONTROL,
    ID,
    OURS,
    WorkerdInvocation,
    lost,
    memory_exceeded,
)
from edgesim.isolates.javascript.settings import PLATFORM, SOCKET
from edgesim.isolates.javascript.source_map import SourceMap
from edgesim.isolates.javascript.stderr import Stderr
from edgesim.isolates.protocol.limits import HUNG, WAIT_UNTIL_SECONDS
from edgesim.isolates.protocol.wire import Done, Failure
from edgesim.model import Headers, read_all

INVOKE, KIND = "x-edgesim-invoke", "x-edgesim-kind"
START_SECONDS = 20.0
REPORT_SECONDS = WAIT_UNTIL_SECONDS + 5
"""Seconds from a response to the report of its invocation, which ends waitUntil work itself."""
EXIT_SECONDS = 5.0
CONNECTIONS_MAX = 2048
"""Connections of one process to the platform; further ones are refused."""
BACKLOG = 4096
EVICTED = "The isolate was evicted because of what another invocation in it did."
_ENVIRONMENT = {"TZ": "UTC", "LANG": "C.UTF-8"}

log = structlog.get_logger()


class WorkerdProgram(msgspec.Struct, frozen=True):
    """A program to start: workerd, its configuration, the folder of its sockets and modules.

    ``fresh``: it has an isolate for each invocation.
    """

    worker: str
    workerd: Path
    settings: Path
    folder: Path
    sources: SourceMap
    fresh: bool


class BootReport(msgspec.Struct):
    """The isolate's reply to the first request; ``error``: name, message, stack of a failed load.

    ``handlers`` None: the module has no default export.
    """

    handlers: list[str] | None = None
    entrypoints: list[str] = []
    error: tuple[str, str, str | None] | None = None


class EndedError(Exception):
    """The process of an invocation has ended, or was taken from it.

    ``done`` is the invocation's if it cannot be run again, or was to blame; ``alone``: it may have
    been to blame, so the next process is for it alone.
    """

    def __init__(self, done: Done, *, alone: bool = False) -> None:
        super().__init__()
        self.done = done
        self.alone = alone


class WorkerdProcess:
    """A workerd process.  Made by ``open_process``."""

    def __init__(
        self,
        program: WorkerdProgram,
        pid: int,
        path: Path,
        stderr: Stderr,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.pid = pid
        self.fresh = program.fresh
        self.runs: dict[str, WorkerdInvocation] = {}
        self.retired = False
        """True if the process gets no further invocation."""
        self.ended = anyio.Event()
        self.returncode: int | None = None
        self.booted = BootReport()
        self.pinging = False
        """True while a ping waits for its reply."""
        self._program = program
        self._path = path
        self._tasks = tasks
        self._idle: list[ClientConnection] = []
        self._serving: set[ServerConnection] = set()
        self._unused = anyio.Event()
        self._neighbours = 0
        self._verdict: Done | None = None
        self._stderr = stderr
        self._charged = 0.0
        self._charged = self._cpu_clock()

    # --- an invocation ---

    async def run(self, run: WorkerdInvocation) -> Done:
        """Run an invocation to its end; EndedError if the process ends or is retired first."""
        self.charge()
        self.runs[run.id] = run
        run.begin()
        try:
            with anyio.CancelScope() as run.scope:
                return await self._run(run)
            raise EndedError(lost(EVICTED), alone=True)
        except ValueError as error:
            return _forged(error)
        except LostError as error:
            with anyio.move_on_after(EXIT_SECONDS):
                await self.ended.wait()
            raise self._ended() from error
        finally:
            self.charge()
            del self.runs[run.id]
            if self.retired and not self.runs:
                self._unused.set()

    def _ended(self) -> EndedError:
        """The meaning of the end of the process for an invocation that it had."""
        cause = self._cause()
        if cause is None:
            return EndedError(lost("The isolate ended before its invocation was over."))
        if self._neighbours <= 1:
            return EndedError(cause)
        return EndedError(lost(EVICTED), alone=True)

    def _cause(self) -> Done | None:
        """The outcome of the invocation that ended the process; None if none of them did."""
        if self._verdict is not None:
            return self._verdict
        if self._stderr.out_of_memory:
            return memory_exceeded()
        if self.returncode in {None, 0, -signal.SIGKILL}:
            return None
        message = f"The isolate ended before its invocation did: {_status(self.returncode)}."
        return Done("internalError", [Failure("Error", message)])

    async def _run(self, run: WorkerdInvocation) -> Done:
        response = await self.exchange(self._request(run))
        kind = response.header(KIND)
        if kind == "done":
            run.finish(await _whole(response), self._program.sources)
        elif kind != "response":  # workerd's own, in the place of one that will never come
            return Done("exception", [Failure("Error", HUNG)])
        else:
            run.respond(response, encoded=response.header("content-encoding") is not None)
        with anyio.move_on_after(REPORT_SECONDS):
            await self._until_reported(run)
        if not run.reported.done():
            return Done("exception", [Failure("Error", HUNG)])
        if response.received is not None:  # its code may run until the last byte has left
            await response.received.wait()
        return run.reported.result()

    async def _until_reported(self, run: WorkerdInvocation) -> None:
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(_cancel_after, self.ended, waiting.cancel_scope)
            await run.reported
            waiting.cancel_scope.cancel()
        if not run.reported.done():
            raise LostError("the process ended")

    def _request(self, run: WorkerdInvocation) -> HttpMessage:
        invoke = run.invoke
        head = msgspec.json.encode(
            {"id": run.id, "handler": invoke.handler, "entrypoint": invoke.entrypoint}
        ).decode()
        if invoke.handler != "fetch":
            body = values.dumps(invoke.event)
            return HttpMessage([(INVOKE, head)], body, "POST", "http://edgesim/")
        event = invoke.event
        headers: Headers = [each for each in event["headers"] if not each[0].startswith(OURS)]
        headers += [(INVOKE, head), (CF, msgspec.json.encode(event["cf"]).decode())]
        return HttpMessage(headers, run.body(event["body"]), event["method"], event["url"])

    # --- HTTP ---

    async def exchange(self, request: HttpMessage) -> HttpMessage:
        """Send a request to workerd and return its response; LostError if it ends first."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                break
        else:
            connection = await self._connect()
        return await connection.exchange(request, self._idle.append)

    async def _connect(self) -> ClientConnection:
        loop = asyncio.get_running_loop()
        path = str(self._path.with_suffix(".in"))
        try:
            return (await loop.create_unix_connection(lambda: ClientConnection(self._tasks), path))[
                1
            ]
        except OSError as error:
            raise LostError(str(error)) from error

    def accept(self) -> ServerConnection:
        """Return the protocol of a connection that workerd has opened."""
        connection = ServerConnection(self._serve, self._tasks)
        self._serving = {each for each in self._serving if not each.closed}
        if len(self._serving) >= CONNECTIONS_MAX:
            log.warning("too many connections of a Worker", worker=self._program.worker)
            connection.refuse()
        self._serving.add(connection)
        return connection

    async def _serve(self, request: HttpMessage) -> HttpMessage:
        """Answer a request of an isolate."""
        run = self.runs.get(request.header(ID) or "")
        if run is None:  # its invocation has ended
            return HttpMessage([], status=410)
        try:
            match request.header(CONTROL):
                case "call":
                    return await run.call(request)
                case "log":
                    run.take_logs(await _whole(request))
                case "done":
                    run.finish(await _whole(request), self._program.sources)
                case _:
                    return await run.fetch(request)
        except ValueError as error:
            run.end(_forged(error))
            return HttpMessage([], status=400)
        return HttpMessage([], status=204)

    # --- limits ---

    def charge(self) -> float:
        """Charge the CPU time since the last call to the invocations; return it in ms."""
        now = self._cpu_clock()
        used, self._charged = (now - self._charged) * 1000, now
        for run in self.runs.values():
            run.cpu_ms += used / len(self.runs)
        return used

    def _cpu_clock(self) -> float:
        """CPU time of the process, in seconds; the last known value once it has ended."""
        try:
            return time.clock_gettime(~self.pid << 3 | 2)  # the kernel's number for a process
        except OSError:
            return self._charged

    def memory_bytes(self) -> int:
        """Resident memory of the process that is not a file's; 0 once it has ended."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as statm:  # noqa: PTH123 (a /proc file)
                fields = statm.read().split()
        except OSError:
            return 0
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")

    def kill(self, verdict: Done | None = None) -> None:
        """Kill the process, because of what an invocation did if there is a verdict."""
        self.retired = True
        self._verdict = self._verdict or verdict
        if not self.ended.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def retire(self) -> None:
        """Take no more invocations; those of which nothing has left begin again elsewhere.

        Among them may be the one whose callback does not return.
        """
        self.retired = True
        if len(self.runs) > 1:
            for run in self.runs.values():
                if not run.has_left:
                    run.scope.cancel()

    def end(self) -> None:
        """Record that the process has ended."""
        self.retired = True
        self._neighbours = len(self.runs)
        self.ended.set()

    async def finished(self) -> None:
        """Wait until the process has ended, or is retired and has no invocation left."""
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(_cancel_after, self.ended, waiting.cancel_scope)
            waiting.start_soon(_cancel_after, self._unused, waiting.cancel_scope)

    def close(self) -> None:
        """Close all connections."""
        for connection in (*self._idle, *self._serving):
            connection.close()


@asynccontextmanager
async def open_process(
    program: WorkerdProgram, number: int, tasks: asyncio.TaskGroup
) -> AsyncIterator[WorkerdProcess]:
    """Start workerd and load the Worker in it; WorkerLoadError if it does not start or load."""
    path = program.folder / str(number)
    incoming, outgoing = path.with_suffix(".in"), path.with_suffix(".out")
    stderr = Stderr(program.worker)
    with socket.socket(socket.AF_UNIX) as listener, stderr.pipe() as pipe:
        listener.bind(str(incoming))
        listener.listen(BACKLOG)
        running = await foreign.start(
            [
                *(sys.executable, "-P", "-s", "-m", "edgesim.isolates.javascript.launch"),
                *(str(program.folder), str(program.workerd), "serve", "--experimental"),
                *(f"--socket-fd={SOCKET}={listener.fileno()}",),
                *(f"--external-addr={PLATFORM}=unix:{outgoing}",),
                str(program.settings),
            ],
            pass_fds=[listener.fileno()],
            stdout=pipe,
            stderr=pipe,
            env=_ENVIRONMENT,
        )
    process = WorkerdProcess(program, running.pid, path, stderr, tasks)
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(process.accept, str(outgoing), backlog=BACKLOG)
    async with aclosing(running), anyio.create_task_group() as watching:
        watching.start_soon(_follow, running, process)
        try:
            await _boot(program, process, stderr)
            yield process
        finally:
            with anyio.CancelScope(shield=True):
                process.kill()
                await running.wait()
                process.end()
                process.close()
                server.close()
                for file in (incoming, outgoing):
                    file.unlink(missing_ok=True)
            watching.cancel_scope.cancel()


async def _follow(running: foreign.Process, process: WorkerdProcess) -> None:
    process.returncode = await running.wait()
    process.end()


def _forged(error: ValueError) -> Done:
    message = f"The isolate sent what none sends: {error}"
    return Done("internalError", [Failure("Error", message)])


def _status(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


async def _boot(program: WorkerdProgram, process: WorkerdProcess, stderr: Stderr) -> None:
    request = HttpMessage([(INVOKE, '{"handler":"boot"}')], b"", "POST", "http://edgesim/")
    problem: str | None = f"did not load within {START_SECONDS:.0f} s"
    with anyio.move_on_after(START_SECONDS):
        try:
            response = await process.exchange(request)
            problem = await _problem(program, process, response)
        except LostError:
            await process.ended.wait()
            problem = f"workerd ended while it started ({_status(process.returncode or 0)})"
    if problem is not None:
        said = stderr.error()
        raise WorkerLoadError(f"worker {program.worker}: {said or problem}")


async def _problem(
    program: WorkerdProgram, process: WorkerdProcess, response: HttpMessage
) -> str | None:
    """The reason why the Worker did not load, or None."""
    if response.status != 200:
        return "workerd does not start it"
    process.booted = msgspec.json.decode(await _whole(response), type=BootReport)
    if process.booted.error is not None:
        name, message, stack = process.booted.error
        place = program.sources.first(stack or "")
        return f"{place}: {name}: {message}" if place else f"{name}: {message}"
    if process.booted.handlers is None:
        return "its main module has no default export; export default { async fetch(...) {...} }"
    return None


async def _whole(message: HttpMessage) -> bytes:
    return await read_all(message.body)


async def _cancel_after(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()

"""One running workerd process and the invocations in it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import anyio
import msgspec
import structlog

from edgesim import foreign
from edgesim.isolates.host.cpu_clock import cpu_seconds
from edgesim.isolates.javascript import values
from edgesim.isolates.javascript.http import HeadTooLargeError, HttpMessage, LostError
from edgesim.isolates.javascript.invocation import (
    CF,
    OURS,
    WorkerdInvocation,
    cpu_exceeded,
    lost,
    memory_exceeded,
)
from edgesim.isolates.javascript.source_map import SourceMap
from edgesim.isolates.javascript.stderr import Stderr
from edgesim.isolates.javascript.wires import CONTROL, ID, KIND, open_wires
from edgesim.isolates.protocol.limits import HUNG, WAIT_UNTIL_SECONDS
from edgesim.isolates.protocol.wire import Done, Failure
from edgesim.model import Headers, Limits
from edgesim.system import LINUX

INVOKE = "x-edgesim-invoke"
REPORT_SECONDS = WAIT_UNTIL_SECONDS + 5
"""Seconds from a response to the report of its invocation, which ends waitUntil work itself."""
CUT = "The response's body failed before any of it was sent."
EVICTED = "The isolate was evicted because of what another invocation in it did."
EXIT_SECONDS, EXIT_LOOKS = 1.0, 100
"""Time from the loss of a connection to the exit of the process, and how often it is looked for."""
OVERHEAD_BYTES = 96 << 20
"""Memory of workerd itself, beside that of the Worker."""
URL = "http://edgesim/"
_PING = '{"handler":"ping"}'

log = structlog.get_logger()


class WorkerdProgram(msgspec.Struct, frozen=True):
    """A program to start: workerd, its configuration, the folder of its sockets and modules.

    ``fresh``: it has an isolate for each invocation.  ``inspected``: it serves a debugger.
    """

    worker: str
    workerd: Path
    settings: Path
    folder: Path
    sources: SourceMap
    limits: Limits
    fresh: bool
    inspected: bool = False


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
        running: foreign.Process,
        path: Path,
        stderr: Stderr,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.runs: dict[str, WorkerdInvocation] = {}
        self.retired = False
        """True if the process gets no further invocation."""
        self.ended = anyio.Event()
        self.booted = BootReport()
        self.inspector_port: int | None = None
        self.pinging = False
        """True while a ping waits for its reply."""
        self.wires = open_wires(
            path,
            program.worker,
            self._serve,
            tasks,
            self._look,
            self.kill,
            lambda: self.kill(memory_exceeded()),
        )
        self._program = program
        self._running = running
        self._pid = running.pid
        self._unused = anyio.Event()
        self._neighbours = 0
        self._killed_for: Done | None = None
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
            if run.reported.done() and not run.reported.cancelled():
                return run.reported.result()
            raise EndedError(lost(EVICTED), alone=True)
        except ValueError as error:
            return _forged(error)
        except HeadTooLargeError as error:
            run.leave()  # its handler has run
            return Done("exception", [Failure("Error", f"The isolate sent {error}.")])
        except LostError as error:
            await self._until_exit()
            if not self.ended.is_set():  # workerd cut this one response
                return await self._cut(run)
            raise self._ended() from error
        finally:
            self.charge()
            self.retired |= run.is_broken
            del self.runs[run.id]
            self.wires.forget(run.id)
            run.cancel_calls()
            if self.retired and not self.runs:
                self._unused.set()

    async def _until_exit(self) -> None:
        """Wait for the exit of a process that has hung up; it may have closed one connection only.

        A real sleep where time is virtual: there the exit is seen by looking.
        """
        for _ in range(EXIT_LOOKS):
            if not self._look():
                return
            if foreign.stops_the_world():
                time.sleep(EXIT_SECONDS / EXIT_LOOKS)  # noqa: ASYNC251 (see above)
            else:
                await anyio.sleep(EXIT_SECONDS / EXIT_LOOKS)

    async def _cut(self, run: WorkerdInvocation) -> Done:
        """The end of an invocation whose response failed before its head was sent."""
        run.leave()  # its handler has run
        with anyio.move_on_after(REPORT_SECONDS):
            await run.reported
        failure = Failure("Error", CUT)
        reported = run.reported.done() and not run.reported.cancelled()
        done = run.reported.result() if reported else Done("exception", [])
        return Done("exception", [*done.exceptions, failure])

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
        if self._killed_for is not None:
            return self._killed_for
        if self._stderr.out_of_memory:
            return memory_exceeded()
        code = self._running.returncode
        if code in {None, 0, -signal.SIGKILL}:
            return None
        message = f"The isolate ended before its invocation did: {status_of(code)}."
        return Done("internalError", [Failure("Error", message)])

    async def _run(self, run: WorkerdInvocation) -> Done:
        response = await self.wires.exchange(run.id, self._request(run))
        kind = response.header(KIND)
        if kind == "done":
            async with run.collected(response.body) as report:
                run.finish(report, self._program.sources)
        elif kind != "response":  # workerd's own, in the place of one that will never come
            return Done("exception", [Failure("Error", HUNG)])
        else:
            run.respond(response, encoded=response.header("content-encoding") is not None)
        with anyio.move_on_after(REPORT_SECONDS):
            await run.reported
        if not run.reported.done() or run.reported.cancelled():
            return Done("exception", [Failure("Error", HUNG)])
        if response.received is not None:  # its code may run until the last byte has left
            await response.received.wait()
            if self._killed_for is not None:
                raise LostError("the process was killed before the response's last byte")
        return run.reported.result()

    def _request(self, run: WorkerdInvocation) -> HttpMessage:
        invoke = run.invoke
        head = msgspec.json.encode(run.head()).decode()
        if invoke.handler != "fetch":
            body = values.dumps(invoke.event)
            return HttpMessage([(INVOKE, head)], body, "POST", URL)
        event = invoke.event
        headers: Headers = [each for each in event["headers"] if not each[0].startswith(OURS)]
        headers += [(INVOKE, head), (CF, msgspec.json.encode(event["cf"]).decode())]
        return HttpMessage(headers, run.body(event["body"]), event["method"], event["url"])

    async def ping(self) -> None:
        """Return once workerd's event loop has replied; LostError if the process ends first."""
        await self.wires.exchange("", HttpMessage([(INVOKE, _PING)], b"", "GET", URL))

    async def _serve(self, request: HttpMessage) -> HttpMessage:
        """Answer a request of an isolate."""
        run = self.runs.get(request.header(ID) or "")
        if run is None:  # its invocation has ended
            return HttpMessage([], status=410)
        try:
            with run.calling():
                match request.header(CONTROL):
                    case "call":
                        return await run.call(request)
                    case "log":
                        async with run.collected(request.body) as entries:
                            run.take_logs(entries)
                    case "done":
                        async with run.collected(request.body) as report:
                            run.finish(report, self._program.sources)
                    case _:
                        return await run.fetch(request)
        except ValueError as error:
            run.end(_forged(error))
            return HttpMessage([], status=400)
        return HttpMessage([], status=204)

    # --- limits ---

    def enforce(self) -> float:
        """Kill the process if a limit is exceeded; return the CPU time since the last call, in ms.

        V8's heap is limited by V8, which ends the process; what is outside of it is seen here.
        """
        used = self.charge()
        limits = self._program.limits
        isolates = max(1, len(self.runs)) if self._program.fresh else 1
        if self._memory_bytes() > OVERHEAD_BYTES + isolates * limits.memory_bytes:
            self.kill(memory_exceeded())
        elif any(run.cpu_ms > limits.cpu_ms for run in self.runs.values()):
            self.kill(cpu_exceeded())
        return used

    def _look(self) -> bool:
        """Enforce the limits; return False once the process has ended."""
        if self._running.returncode is None:
            self.enforce()
            return True
        self.end()
        return False

    def charge(self) -> float:
        """Charge the CPU time since the last call to the invocations; return it in ms."""
        now = self._cpu_clock()
        used, self._charged = (now - self._charged) * 1000, now
        for run in self.runs.values():
            run.cpu_ms += used / len(self.runs)
        return used

    def _cpu_clock(self) -> float:
        """CPU time of the process, in seconds; the last known value once it has ended."""
        seconds = cpu_seconds(self._pid)
        return self._charged if seconds is None else seconds

    def _memory_bytes(self) -> int:
        """Resident memory that is not a file's, in bytes; 0 if it has ended or is unknown."""
        if not LINUX:
            return 0
        try:
            with open(f"/proc/{self._pid}/statm", "rb") as statm:  # noqa: PTH123 (a /proc file)
                fields = statm.read().split()
        except OSError:
            return 0
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")

    def kill(self, cause: Done | None = None) -> None:
        """Kill the process; ``cause`` is the outcome of the invocation that exceeded a limit."""
        self.retired = True
        self._killed_for = self._killed_for or cause
        if not self.ended.is_set():
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

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
        if self.ended.is_set():
            return
        self.retired = True
        self._neighbours = len(self.runs)
        self.ended.set()
        for run in self.runs.values():
            run.abandon()

    async def exit_status(self) -> int:
        """Wait until the process has exited; return its status."""
        return await self._running.wait()

    async def finished(self) -> None:
        """Wait until the process has ended, or is retired and has no invocation left."""
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(_cancel_after, self.ended, waiting.cancel_scope)
            waiting.start_soon(_cancel_after, self._unused, waiting.cancel_scope)


def _forged(error: ValueError) -> Done:
    message = f"The isolate sent what none sends: {error}"
    return Done("internalError", [Failure("Error", message)])


def status_of(code: int | None) -> str:
    """An exit status in words."""
    code = code or 0
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


async def _cancel_after(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()

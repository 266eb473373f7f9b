"""Platform side of a Worker's zygote and its forks: starts, requests, exit status, termination."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import anyio
import structlog
from anyio.abc import ByteReceiveStream

from edgesim import foreign
from edgesim.errors import WorkerLoadError
from edgesim.isolates.host.link import CONTROL_BYTES_MAX, Link, TooMuchError, open_link
from edgesim.isolates.host.strays import end_strays, strays
from edgesim.isolates.protocol.limits import CPU_EXCEEDED, MEMORY_EXCEEDED
from edgesim.isolates.protocol.wire import (
    LOST,
    MANY,
    ONE,
    OUT_OF_MEMORY_STATUS,
    Boot,
    Booted,
    Done,
    Exited,
    Failure,
    Forked,
    FrameBatch,
)
from edgesim.model import Limits, WorkerSpec
from edgesim.system import LINUX

BOOT_SECONDS = 30.0
SHUTDOWN_SECONDS = 5.0
EXIT_SECONDS = 1.0
"""Maximum time until a zygote reports the exit of a process."""
_CPU_SIGNALS = {signal.SIGXCPU, signal.SIGPROF, signal.SIGVTALRM}
_ENDED = {b"Z", b"X"}
_EXITING = 0x4
"""PF_EXITING in the flags of /proc/PID/stat: the process is exiting, with or without a signal."""
_NEARLY = 0.75
"""If a signal ended an isolate that used this share of its memory, it most likely ran out."""
STDERR_LINES_MAX = 200
"""Maximum lines that are logged of what a Worker's processes write to file descriptor 2."""

log = structlog.get_logger()

# The hash seed and the time zone (UTC) are production's; worker code does not get the rest of the
# platform's environment.
_ENVIRONMENT = {
    "PYTHONHASHSEED": "111",
    "PYTHONUTF8": "1",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONTZPATH": "",  # no zones on disk there: they come from tzdata
    "OPENBLAS_NUM_THREADS": "1",  # else importing numpy starts threads, which ends the process
    "PYTHONUNBUFFERED": "1",
}


class Fork:
    """A process requested from the zygote; its channel can be written to before it is forked."""

    def __init__(self, number: int, zygote: int) -> None:
        self.number = number
        self._zygote = zygote
        self.pid: int | None = None
        self.exit: Exited | None = None
        self.ended = anyio.Event()
        self._doomed = False
        self._killed = False

    def set_pid(self, pid: int) -> None:
        """Record the process id, once the zygote has forked it."""
        self.pid = pid
        if self._doomed:
            self.kill()

    def kill(self) -> None:
        """Kill the process now, or as soon as it is forked."""
        self._doomed = True
        if self.pid is not None and self.exit is None and _is_alive(self.pid, self._zygote):
            with suppress(ProcessLookupError):  # it has exited and its Exited frame is on its way
                os.kill(self.pid, signal.SIGKILL)
                self._killed = True

    def kill_unless_exiting(self) -> None:
        """Kill the process, whose channel is closed, unless it is already exiting.

        Without Linux only the zygote's report shows that it exits, so the kill comes EXIT_SECONDS
        later.  A process that was killed from outside must not count as killed here.
        """
        if LINUX:
            self.kill()
        else:
            asyncio.get_running_loop().call_later(EXIT_SECONDS, self.kill)

    def verdict(
        self, limits: Limits, error: Exception | None = None, *, out_of_time: bool | None = None
    ) -> Done:
        """Return the Done of the invocation that ended the process, or was lost with it.

        ``error`` is a protocol error in its messages.  ``out_of_time``: its CPU time is used up;
        None if the process served one invocation, so that its CPU time decides.
        """
        done = self._verdict(limits, error, out_of_time)
        if out_of_time is None and self.exit is not None:
            done.cpu_ms = self.exit.cpu_ms
        return done

    def _verdict(self, limits: Limits, error: Exception | None, out_of_time: bool | None) -> Done:
        if isinstance(error, TooMuchError):
            return _verdict("exceededMemory", MEMORY_EXCEEDED)
        if error is None and self.exit is not None and os.WIFSIGNALED(self.exit.status):
            number = os.WTERMSIG(self.exit.status)
            if out_of_time is None:
                out_of_time = number in _CPU_SIGNALS or self.exit.cpu_ms > limits.cpu_ms
            if out_of_time or number == signal.SIGVTALRM:  # the timer of one of its callbacks
                return _verdict("exceededCpu", CPU_EXCEEDED)
            if self.exit.memory_bytes > _NEARLY * limits.memory_bytes:
                return _verdict("exceededMemory", MEMORY_EXCEEDED)
            if number == signal.SIGKILL and not self._killed:  # worker code has no way to send it
                return _lost("was killed from outside")
            error = RuntimeError(f"signal {signal.Signals(number).name}")
        elif error is None and (self.exit is None or self.pid is None):
            return _lost("ended with its zygote" if self.exit is None else "could not be forked")
        elif error is None and self.exit is not None:
            code = os.waitstatus_to_exitcode(self.exit.status)
            if code == OUT_OF_MEMORY_STATUS:
                return _verdict("exceededMemory", MEMORY_EXCEEDED)
            if out_of_time is None and self.exit.cpu_ms > limits.cpu_ms:
                return _verdict("exceededCpu", CPU_EXCEEDED)  # before or after the handler
            error = RuntimeError(f"exit status {code}")
        return _verdict("internalError", f"The isolate ended before its invocation did: {error}.")


def _is_alive(pid: int, zygote: int) -> bool:
    """Return True if the process is a child of the zygote, as far as known here, and not exiting.

    A Worker's module could, during its import, send frames in the zygote's name with the id of a
    process that the platform may kill and it may not.
    """
    if not LINUX:
        return _is_in_session(pid, zygote)
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123 (a /proc file)
            fields = stat.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:  # no file descriptor left: check the session, which no fork can leave
        return _is_in_session(pid, zygote) and _has_memory(pid)
    ending = fields[0] in _ENDED or bool(int(fields[6]) & _EXITING)
    return int(fields[1]) == zygote and not ending


def _is_in_session(pid: int, zygote: int) -> bool:
    try:
        return os.getsid(pid) == zygote
    except ProcessLookupError:
        return False


def _has_memory(pid: int) -> bool:
    """Return False for an exiting process or a zombie; needs no file descriptor.

    A process frees its memory before its sockets, so this is false once its channel is closed.
    """
    try:
        Path(f"/proc/{pid}/exe").readlink()
    except (FileNotFoundError, ProcessLookupError):
        return False
    except PermissionError:  # unknown
        return True
    return True


def _verdict(outcome: str, message: str) -> Done:
    return Done(outcome, [Failure("Error", message)])


def _lost(how: str) -> Done:
    done = _verdict("internalError", f"The isolate {how} before its invocation was over.")
    done.fault = LOST
    return done


class Forks:
    """The forks of one zygote; created by ``open_forks``."""

    def __init__(self, spec: WorkerSpec, control: socket.socket, zygote: int) -> None:
        self.spec = spec
        self._zygote = zygote
        self.zygote: int | None = zygote
        self.booted = Booted()
        self.lost = anyio.Event()
        self._control = control
        self._link: Link | None = None
        self._boot_reported = anyio.Event()
        self._alive: dict[int, Fork] = {}
        self._count = 0

    def one(self, channel: socket.socket) -> Fork:
        """Request a fork for one invocation; ``channel`` is its end.  OSError if not possible."""
        return self._ask(ONE, channel.fileno())

    def many(self, channel: socket.socket, page: int) -> Fork:
        """Request a fork for many invocations; shared memory ``page`` holds the running one."""
        return self._ask(MANY, channel.fileno(), page)

    def kill_all(self) -> None:
        """Kill all running forks."""
        for fork in self._alive.values():
            fork.kill()

    def _ask(self, kind: bytes, *fds: int) -> Fork:
        if self.lost.is_set():
            raise BrokenPipeError("the zygote is gone")
        if self._link is not None:
            self._link.receive_pending()
        fork = Fork(self._count + 1, self._zygote)
        try:
            socket.send_fds(self._control, [fork.number.to_bytes(4, "big") + kind], fds)
        except (BrokenPipeError, ConnectionResetError):
            self._end(None)  # the event loop has not reported it yet
            raise
        self._count += 1
        self._alive[fork.number] = fork
        return fork

    @property
    def is_importing(self) -> bool:
        """True until the zygote has sent Booted."""
        return not self._boot_reported.is_set()

    async def boot(self, boot: Boot) -> str | None:
        """Let the zygote import the Worker; return the error in one line, or None."""
        control = self._control.dup()
        self._link = await open_link(
            control,
            self.spec.name,
            self._take,
            self._end,
            bytes_max=CONTROL_BYTES_MAX,
            takes_turns=False,
        )
        self._link.send(0, boot)
        with anyio.move_on_after(BOOT_SECONDS) as scope:
            await self._link.until(self._boot_reported)
        if scope.cancelled_caught:
            return f"{boot.main} was not imported within {BOOT_SECONDS:.0f} s"
        if self.booted.error is None and strays(self._zygote):
            return f"{boot.main} started processes while it was imported"
        return self.booted.error

    def _take(self, message: FrameBatch) -> None:
        for _, frame in message.frames:
            match frame:
                case Booted() if not self._boot_reported.is_set():
                    self.booted = frame
                    self._boot_reported.set()
                case Forked() if frame.number in self._alive:
                    self._alive[frame.number].set_pid(frame.pid)
                case Exited() if frame.number in self._alive:
                    fork = self._alive.pop(frame.number)
                    fork.exit = frame
                    fork.ended.set()
                case _:
                    raise ValueError(f"unexpected {type(frame).__name__} from a zygote")

    def _end(self, error: Exception | None) -> None:
        if not self._boot_reported.is_set():
            # A broken connection (OSError) is the process's end too: it left data unread.
            has_ended = error is None or isinstance(error, OSError)
            why = "ended its process while it was imported" if has_ended else f"wrote {error}"
            self.booted = Booted(error=f"{self.spec.main} {why}")
            self._boot_reported.set()
        self.lost.set()
        for fork in self._alive.values():
            fork.ended.set()

    async def wait_for_exit(self, fork: Fork) -> None:
        """Wait until the fork's exit status is known."""
        if self._link is not None:
            await self._link.until(fork.ended)

    async def dismiss(self) -> None:
        """Shut down the zygote."""
        with suppress(OSError):  # it may have exited
            self._control.shutdown(socket.SHUT_WR)
        if self._link is not None:
            with anyio.move_on_after(SHUTDOWN_SECONDS):
                await self._link.until(self.lost)
            self._link.close()


@asynccontextmanager
async def open_forks(spec: WorkerSpec) -> AsyncIterator[Forks]:
    """Start the Worker's zygote and load its module."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = await foreign.start(
                [
                    *(sys.executable, "-P", "-s", "-m", "edgesim.isolates.guest.zygote"),
                    str(theirs.fileno()),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env=_ENVIRONMENT,
            )
        forks = Forks(spec, ours, process.pid)
        boot = Boot(
            spec.name,
            spec.main,
            [(each.name, each.kind, each.value) for each in spec.bindings],
            spec.limits.cpu_ms,
            spec.limits.memory_bytes,
            spec.guard,
            spec.hidden,
            spec.legacy_handlers,
        )
        async with aclosing(process), anyio.create_task_group() as tasks:
            if process.stderr is not None:
                tasks.start_soon(_show_stderr, spec.name, process.stderr)
            try:
                problem = await forks.boot(boot)
                if problem is None:
                    yield forks
            finally:
                unexpected = forks.booted.error is None and forks.lost.is_set()
                with anyio.CancelScope(shield=True):
                    forks.kill_all()
                    end_strays(process.pid)
                    if forks.is_importing:
                        with suppress(ProcessLookupError):
                            process.kill()  # during the import it does not read the control socket
                    await forks.dismiss()
                    await _end(process)
                if unexpected:
                    log.error(
                        "zygote exited unexpectedly",
                        worker=spec.name,
                        pid=process.pid,
                        status=process.returncode,
                    )
                tasks.cancel_scope.cancel()
        if problem is not None:  # outside the task group, which would wrap it
            raise WorkerLoadError(f"worker {spec.name}: {problem}")


async def _end(process: foreign.Process) -> None:
    with anyio.move_on_after(SHUTDOWN_SECONDS):
        await process.wait()
        return
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def _show_stderr(worker: str, stream: ByteReceiveStream) -> None:
    """Log what a Worker's processes write to file descriptor 2, which is not its console."""
    rest, shown = b"", 0
    with suppress(anyio.EndOfStream, anyio.ClosedResourceError):
        while True:
            *lines, rest = (rest + await stream.receive()).split(b"\n")
            rest = rest[-1000:]
            for line in lines:
                shown += 1
                if shown <= STDERR_LINES_MAX:
                    log.warning(
                        "stderr", worker=worker, text=line[:1000].decode("utf-8", "replace")
                    )

"""Child processes behind sockets: asynchronous on a real event loop, synchronous on a virtual one.

On an ordinary event loop these are anyio's own streams and processes.  A virtual-time loop has no
selector and needs none: a request to a child process blocks the whole loop until the reply arrives,
which takes no virtual time.  So one async driver serves both loops, and a replay stays
deterministic: no reply can overtake another.

Tried and rejected: a selector in the virtual loop (the order of two replies is then random again),
and a second, synchronous copy of each driver.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import anyio
import structlog
from anyio.abc import ByteReceiveStream, ByteStream, UNIXSocketStream

from edgesim.system import INHERITED, LINUX

_WAIT_SECONDS = 60.0
_READ_BYTES = 1 << 16
STDERR_LINES_MAX = 200
"""Maximum lines of one process's standard error that are logged; later ones are discarded."""
STDERR_CHARS_MAX = 1000

log = structlog.get_logger()


class StoppingLoop:
    """Marker base class: on this event loop child-process I/O is synchronous (virtual time)."""

    disk: Any = None
    """The simulated disk (``durable.Disk``) of the drivers on this loop, if any."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.listeners: list[Callable[[], bool]] = []
        """Functions called before time jumps; one that returns True had something to do first."""


class Process(Protocol):
    """The part of anyio's Process that drivers use."""

    @property
    def pid(self) -> int:
        """The process id."""

    @property
    def stderr(self) -> ByteReceiveStream | None:
        """The process's standard error; None if it inherits edgesim's."""

    @property
    def returncode(self) -> int | None:
        """The exit status; None while it runs."""

    async def wait(self) -> int:
        """Wait until it has exited; returns the exit status."""

    def kill(self) -> None:
        """Send SIGKILL; ProcessLookupError if the process no longer exists."""

    async def aclose(self) -> None:
        """Kill the process if it still runs, and release its resources."""


class StoppingStream(ByteStream):
    """edgesim's end of a socket, with synchronous I/O that blocks the event loop.

    TimeoutError if the peer takes longer than ``timeout`` seconds of real time.
    """

    def __init__(self, sock: socket.socket, timeout: float | None = None) -> None:
        sock.settimeout(timeout)
        self._socket = sock

    async def receive(self, max_bytes: int = _READ_BYTES) -> bytes:
        # No checkpoint: the number of pieces that arrive must not affect the order of tasks.
        return self.receive_now(max_bytes)

    def receive_now(self, max_bytes: int = _READ_BYTES) -> bytes:
        """Receive the next bytes; EndOfStream once the peer has closed the connection."""
        self._check_open()
        try:
            data = self._socket.recv(max_bytes)
        except TimeoutError:
            raise
        except OSError as error:
            raise anyio.BrokenResourceError from error
        if not data:
            raise anyio.EndOfStream
        return data

    def has_data(self) -> bool:
        """True if ``receive_now`` would return at once."""
        self._check_open()
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    async def send(self, item: bytes) -> None:
        self.send_now(item)

    def send_now(self, item: bytes) -> None:
        """Send all bytes before returning."""
        self._check_open()
        try:
            self._socket.sendall(item)
        except OSError as error:
            raise anyio.BrokenResourceError from error

    async def send_fds(self, message: bytes, fds: Sequence[int]) -> None:
        """Send a message with copies of file descriptors."""
        self.send_fds_now(message, fds)

    def send_fds_now(self, message: bytes, fds: Sequence[int]) -> None:
        """Like ``send_fds``, synchronously."""
        self._check_open()
        try:
            socket.send_fds(self._socket, [message], fds)
        except OSError as error:
            raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        with suppress(OSError):  # the peer may have closed already
            self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _check_open(self) -> None:
        if self._socket.fileno() < 0:
            raise anyio.ClosedResourceError


class _StoppingProcess:
    """A child process whose exit is awaited synchronously, blocking the event loop."""

    stderr = None

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    async def wait(self) -> int:
        try:
            return self._process.wait(_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def kill(self) -> None:
        self._process.kill()

    async def aclose(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


Stream = UNIXSocketStream | StoppingStream


def stops_the_world() -> bool:
    """True if the running event loop blocks for child-process I/O."""
    # Unlike get_running_loop, this does not raise if there is no loop.
    return isinstance(asyncio._get_running_loop(), StoppingLoop)  # noqa: SLF001


def simulated_disk() -> Any:
    """The simulated disk of the running loop; None if there is none."""
    loop = asyncio._get_running_loop()  # noqa: SLF001
    return loop.disk if isinstance(loop, StoppingLoop) else None


async def stream(sock: socket.socket) -> Stream:
    """Wrap a connected Unix socket in a stream, which owns it from then on."""
    if stops_the_world():
        return StoppingStream(sock)
    return await UNIXSocketStream.from_socket(sock)


async def start(
    command: Sequence[str],
    *,
    pass_fds: Sequence[int],
    env: Mapping[str, str],
    stdout: int | None = None,
    stderr: int | None = None,
    cwd: str | None = None,
) -> Process:
    """Start a process that inherits ``pass_fds``; pipes to it work on a real loop only.

    It runs in its own session: signals to edgesim's process group do not reach it, and edgesim
    ends its children itself.  Its standard input is empty, or what ``jail.lifeline`` waits for.
    """
    env = {**env, **INHERITED}
    stdin = subprocess.DEVNULL if LINUX else subprocess.PIPE
    if stops_the_world():
        return _StoppingProcess(
            subprocess.Popen(  # noqa: ASYNC220, S603 (must block the event loop; edgesim's own commands)
                list(command),
                pass_fds=pass_fds,
                env=env,
                stdin=stdin,
                stdout=stdout,
                stderr=None if stderr == subprocess.PIPE else stderr,
                cwd=cwd,
                start_new_session=True,
            )
        )
    return await anyio.open_process(
        list(command),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        env=env,
        cwd=cwd,
        start_new_session=True,
    )


async def end(process: Process | None, stream: Stream | None, seconds: float) -> None:
    """End a process that exits when its stream closes; kill it if it has not in that time."""
    if stream is not None:
        await stream.aclose()
    if process is not None:
        with anyio.move_on_after(seconds):
            await process.wait()
        with suppress(ProcessLookupError):
            process.kill()
        await process.aclose()


@contextmanager
def logged_stderr(process: str) -> Iterator[int]:
    """A file descriptor for a child's standard error; its lines are written to edgesim's log.

    A child that inherited edgesim's descriptor would block if no reader drains edgesim's log.
    """
    ours, theirs = os.pipe()
    threading.Thread(
        target=_log_lines, args=(ours, process), name=f"stderr of {process}", daemon=True
    ).start()
    try:
        yield theirs
    finally:
        os.close(theirs)  # the child has its own copy by now


def _log_lines(fd: int, process: str) -> None:
    with open(fd, encoding="utf-8", errors="backslashreplace") as lines:
        shown = 0
        while line := lines.readline(STDERR_CHARS_MAX):
            shown += 1
            if shown <= STDERR_LINES_MAX:
                log.warning("stderr", process=process, text=line.rstrip("\n"))

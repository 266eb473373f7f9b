"""Processes of ours on the other side of a socket, spoken to in the way the running loop can.

On an ordinary event loop these are anyio's own streams and processes.  A loop whose time is virtual
has no selector, and needs none: whoever asks such a process stops the whole world until the answer
is there, which to virtual time is no time at all.  So a driver stays one body of async code, and a
replay stays deterministic: no answer can overtake another.

Tried and dropped: a selector inside the virtual loop (which of two answers comes first is then
chance again), and a second, synchronous copy of each driver.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import anyio
import structlog
from anyio.abc import ByteReceiveStream, ByteStream, UNIXSocketStream

_WAIT_SECONDS = 60.0
_READ_BYTES = 1 << 16
STDERR_LINES_MAX = 200
"""Lines of one process's standard error that are logged; later ones are read and dropped."""
STDERR_CHARS_MAX = 1000

log = structlog.get_logger()


class StoppingLoop:
    """Mark of an event loop that stands still while a foreign process answers."""

    disk: Any = None
    """The simulated disk (``durable.Disk``) under the drivers that run on this loop, if any."""


class Process(Protocol):
    """As much of anyio's Process as drivers use."""

    @property
    def pid(self) -> int:
        """Its number."""

    @property
    def stderr(self) -> ByteReceiveStream | None:
        """What it writes to standard error; None where that is our own."""

    @property
    def returncode(self) -> int | None:
        """None while it runs."""

    async def wait(self) -> int:
        """Until it has ended; its exit status."""

    def kill(self) -> None:
        """SIGKILL; ProcessLookupError if it is gone."""

    async def aclose(self) -> None:
        """Let go of it, killed if need be."""


class StoppingStream(ByteStream):
    """Our end of a socket, read and written with the world stopped.

    TimeoutError where the other side takes longer than ``timeout`` seconds of real time.
    """

    def __init__(self, sock: socket.socket, timeout: float | None = None) -> None:
        sock.settimeout(timeout)
        self._socket = sock

    async def receive(self, max_bytes: int = _READ_BYTES) -> bytes:
        # No checkpoint: in how many pieces it arrives must not be seen in the order of tasks.
        return self.receive_now(max_bytes)

    def receive_now(self, max_bytes: int = _READ_BYTES) -> bytes:
        """What the other side says next; EndOfStream once it has hung up."""
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

    def has_news(self) -> bool:
        """Whether ``receive_now`` would return at once."""
        self._check_open()
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    async def send(self, item: bytes) -> None:
        self.send_now(item)

    def send_now(self, item: bytes) -> None:
        """All of it."""
        self._check_open()
        try:
            self._socket.sendall(item)
        except OSError as error:
            raise anyio.BrokenResourceError from error

    async def send_fds(self, message: bytes, fds: Sequence[int]) -> None:
        """A message with copies of file descriptors."""
        self.send_fds_now(message, fds)

    def send_fds_now(self, message: bytes, fds: Sequence[int]) -> None:
        """The same, at once."""
        self._check_open()
        try:
            socket.send_fds(self._socket, [message], fds)
        except OSError as error:
            raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        with suppress(OSError):  # the other side may have hung up already
            self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _check_open(self) -> None:
        if self._socket.fileno() < 0:
            raise anyio.ClosedResourceError


class _StoppingProcess:
    """A child process that is waited for with the world stopped."""

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


Stream = UNIXSocketStream | StoppingStream


def stops_the_world() -> bool:
    """Whether there is a running loop that stands still for foreign processes."""
    # Unlike get_running_loop, it does not mind that there may be none.
    return isinstance(asyncio._get_running_loop(), StoppingLoop)  # noqa: SLF001


def simulated_disk() -> Any:
    """The disk of the running loop; None for a real one, and where none is simulated."""
    loop = asyncio._get_running_loop()  # noqa: SLF001
    return loop.disk if isinstance(loop, StoppingLoop) else None


async def stream(sock: socket.socket) -> Stream:
    """A connected Unix socket as a stream; it is the stream's from now on."""
    if stops_the_world():
        return StoppingStream(sock)
    return await UNIXSocketStream.from_socket(sock)


async def start(
    command: Sequence[str],
    *,
    pass_fds: Sequence[int],
    env: Mapping[str, str] | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
) -> Process:
    """Start a process that inherits ``pass_fds``; a pipe to it is for a real loop only.

    In a session of its own: signals to our process group are for us, and we end our children.
    """
    if stops_the_world():
        return _StoppingProcess(
            subprocess.Popen(  # noqa: ASYNC220, S603 (nothing else may run meanwhile; our own commands)
                list(command),
                pass_fds=pass_fds,
                env=env,
                stdin=stdin,
                stdout=stdout,
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
        start_new_session=True,
    )


@contextmanager
def logged_stderr(process: str) -> Iterator[int]:
    """A descriptor for a child's standard error, whose lines become lines of our log.

    A child that had our own descriptor would wait for ever for whoever does not read our log.
    """
    ours, theirs = os.pipe()
    threading.Thread(
        target=_log_lines, args=(ours, process), name=f"stderr of {process}", daemon=True
    ).start()
    try:
        yield theirs
    finally:
        os.close(theirs)  # the child has its own by now


def _log_lines(fd: int, process: str) -> None:
    with open(fd, encoding="utf-8", errors="backslashreplace") as lines:
        shown = 0
        while line := lines.readline(STDERR_CHARS_MAX):
            shown += 1
            if shown <= STDERR_LINES_MAX:
                log.warning("stderr", process=process, text=line.rstrip("\n"))

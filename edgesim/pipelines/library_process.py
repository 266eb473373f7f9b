"""The platform's side of a process that runs a library on records: SQL and Iceberg.

The process starts with the first request.  Requests are served one after another.  A request that
is cancelled or fails half-way ends the process, and the next one starts it anew.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import anyio
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, IncompleteRead
from anyio.streams.buffered import BufferedByteReceiveStream

from edgesim import foreign
from edgesim.errors import RunError
from edgesim.pipelines.process_frames import LENGTH_BYTES, FrameCodec

_GONE = (BrokenResourceError, ClosedResourceError, EndOfStream, IncompleteRead)
_ENVIRONMENT = {"LANG": "C.UTF-8", "TZ": "UTC"}
CLOSE_SECONDS = 5.0

F = TypeVar("F")
T = TypeVar("T")


class RequestRefusedError(RunError):
    """The process refuses a request, and goes on."""


class ProcessEndedError(Exception):
    """The process has ended during a request; ``status`` is its exit status, if known."""

    def __init__(self, status: int | None) -> None:
        super().__init__(f"status {status}")
        self.status = status


class LibraryProcess(Generic[F]):
    """One process of a Python module; ``frames`` encodes its requests and answers.

    A subclass gives the module's arguments after the number of its socket, and the error of an
    answer that refuses a request.
    """

    def __init__(
        self,
        title: str,
        module: str,
        frames: FrameCodec[F],
        ready: type[F],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._title = title
        self._module = module
        self._frames = frames
        self._ready = ready
        self._environment = {**_ENVIRONMENT, **(environment or {})}
        self._asking = anyio.Lock()
        self._process: foreign.Process | None = None
        self._stream: foreign.Stream | None = None
        self._reader: BufferedByteReceiveStream

    def _arguments(self) -> list[str]:
        """The arguments of a process that starts now."""
        raise NotImplementedError

    def _refusal(self, answer: F) -> RequestRefusedError | None:
        """The error that an answer stands for."""
        raise NotImplementedError

    async def close(self) -> None:
        """End the process, after the request that it serves."""
        async with self._asking:
            await self._end()

    @asynccontextmanager
    async def _exchange(self) -> AsyncIterator[None]:
        """Have the process for one request; ProcessEndedError if it ends meanwhile."""
        async with self._asking:
            if self._process is None or self._process.returncode is not None:
                await self._end()
                await self._start()
            try:
                yield
            except RequestRefusedError:
                raise
            except BaseException as error:
                process = self._process
                with anyio.CancelScope(shield=True):
                    await self._end()
                if isinstance(error, _GONE):
                    raise ProcessEndedError(process.returncode if process else None) from error
                raise

    async def _start(self) -> None:
        arguments = self._arguments()
        ours, theirs = socket.socketpair()
        self._stream = await foreign.stream(ours)
        self._reader = BufferedByteReceiveStream(self._stream)
        try:
            with theirs, foreign.logged_stderr(self._title) as stderr:
                command = [sys.executable, "-P", "-m", self._module, str(theirs.fileno())]
                self._process = await foreign.start(
                    [*command, *arguments],
                    env=self._environment,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    pass_fds=[theirs.fileno()],
                )
            await self._receive(self._ready)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self._end()
            if isinstance(error, _GONE):
                raise RunError(f"the {self._title} did not start") from error
            raise

    async def _send(self, frame: F) -> None:
        assert self._stream is not None
        await self._stream.send(self._frames.encode(frame))

    async def _receive(self, kind: type[T]) -> T:
        head = await self._reader.receive_exactly(LENGTH_BYTES)
        body = await self._reader.receive_exactly(int.from_bytes(head, "big"))
        frame = self._frames.decode(body)
        if (refusal := self._refusal(frame)) is not None:
            raise refusal
        assert isinstance(frame, kind)
        return frame

    async def _end(self) -> None:
        stream, self._stream = self._stream, None
        process, self._process = self._process, None
        await foreign.end(process, stream, CLOSE_SECONDS)

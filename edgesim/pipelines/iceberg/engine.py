"""The platform's side of the Iceberg process, which starts with the first request.

Requests are served one after another.  A request that is cancelled or fails half-way ends the
process, and the next one starts it anew.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import suppress
from typing import TypeVar

import anyio
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, IncompleteRead
from anyio.streams.buffered import BufferedByteReceiveStream

from edgesim import foreign
from edgesim.errors import RunError
from edgesim.pipelines.iceberg import wire

_GONE = (BrokenResourceError, ClosedResourceError, EndOfStream, IncompleteRead)
CLOSE_SECONDS = 5.0

T = TypeVar("T", bound=wire.IcebergFrame)


class TableError(RunError):
    """The metadata of a table cannot be made as asked; ``kind`` is that of ``TableRefused``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class IcebergEngine:
    """One process for all tables."""

    def __init__(self) -> None:
        self._asking = anyio.Lock()
        self._process: foreign.Process | None = None
        self._stream: foreign.Stream | None = None
        self._reader: BufferedByteReceiveStream

    async def ask(self, request: wire.IcebergFrame, answer: type[T]) -> T:
        """Send a request and return its answer; TableError if it is refused."""
        async with self._asking:
            try:
                if self._process is None or self._process.returncode is not None:
                    await self._close()
                    await self._start()
                assert self._stream is not None
                await self._stream.send(wire.encode(request))
                return await self._receive(answer)
            except TableError:
                raise
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await self._close()
                if isinstance(error, _GONE):
                    problem = "the Iceberg process ended; the next request starts it anew"
                    raise RunError(problem) from error
                raise

    async def close(self) -> None:
        """End the process."""
        async with self._asking:
            await self._close()

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._stream = await foreign.stream(ours)
        self._reader = BufferedByteReceiveStream(self._stream)
        module = "edgesim.pipelines.iceberg.process"
        with theirs, foreign.logged_stderr("iceberg") as stderr:
            self._process = await foreign.start(
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                env={"LANG": "C.UTF-8", "TZ": "UTC"},
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=[theirs.fileno()],
            )
        await self._receive(wire.Ready)

    async def _receive(self, kind: type[T]) -> T:
        head = await self._reader.receive_exactly(4)
        body = await self._reader.receive_exactly(int.from_bytes(head, "big"))
        frame = wire.decode(body)
        if isinstance(frame, wire.TableRefused):
            raise TableError(frame.kind, frame.message)
        assert isinstance(frame, kind)
        return frame

    async def _close(self) -> None:
        stream, self._stream = self._stream, None
        process, self._process = self._process, None
        if stream is not None:
            await stream.aclose()
        if process is not None:
            with anyio.move_on_after(CLOSE_SECONDS):
                await process.wait()
            with suppress(ProcessLookupError):
                process.kill()
            await process.aclose()

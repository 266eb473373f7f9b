"""The platform's side of the SQL process, which starts with the first request.

Requests are served one after another.  A request that is cancelled or fails half-way ends the
process, and the next one starts it anew.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.lowlevel
import structlog
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, IncompleteRead
from anyio.streams.buffered import BufferedByteReceiveStream

from edgesim import foreign
from edgesim.errors import RunError
from edgesim.pipelines.sql import wire

ROWS_BYTES = 1 << 22
"""Rows are sent in frames of about this size."""
_GONE = (BrokenResourceError, ClosedResourceError, EndOfStream, IncompleteRead)
CLOSE_SECONDS = 5.0

log = structlog.get_logger()
T = TypeVar("T", bound=wire.SqlFrame)


class SqlEngineError(RunError):
    """The engine refuses a query, or fails to run it."""


class SqlEngine:
    """One process; ``scratch`` is the folder for files on their way to a bucket."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._asking = anyio.Lock()
        self._process: foreign.Process | None = None
        self._stream: foreign.Stream | None = None
        self._reader: BufferedByteReceiveStream

    async def describe(self, query: wire.Query) -> list[wire.ResultColumn]:
        """The columns of a query's result.  SqlEngineError if a pipeline cannot run it."""
        return (await self.describe_columns(query)).columns

    async def describe_columns(self, query: wire.Query) -> wire.Columns:
        """Like ``describe``, with the result's Arrow schema."""
        async with self._exchange():
            await self._send(wire.Describe(query))
            return await self._receive(wire.Columns)

    async def transform(
        self, query: wire.Query, form: wire.FileFormat, name: str, lines: Iterator[bytes]
    ) -> tuple[Path, wire.Transformed]:
        """Run a query over rows; returns the file of its result, which the caller removes."""
        async with self._exchange():
            path = self._scratch / name
            await self._send(wire.Transform(query, form, str(path)))
            for rows in _joined(lines):
                await self._send(wire.Rows(rows))
            await self._send(wire.EndOfRows())
            return path, await self._receive(wire.Transformed)

    @asynccontextmanager
    async def _exchange(self) -> AsyncIterator[None]:
        async with self._asking:
            if (
                self._stream is None
                or self._process is None
                or self._process.returncode is not None
            ):
                await self.close()
                await self._start()
            try:
                yield
            except SqlEngineError:
                raise
            except BaseException as error:
                with anyio.CancelScope(shield=True):
                    await self.close()
                if isinstance(error, _GONE):
                    problem = "the SQL engine ended during a statement; the next one starts it anew"
                    raise RunError(problem) from error
                raise

    async def _start(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)  # files of an earlier process
        self._scratch.mkdir(parents=True)
        ours, theirs = socket.socketpair()
        self._stream = await foreign.stream(ours)
        self._reader = BufferedByteReceiveStream(self._stream)
        try:
            with theirs, foreign.logged_stderr("sql engine") as stderr:
                self._process = await foreign.start(
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        "edgesim.pipelines.sql.process",
                        str(theirs.fileno()),
                    ],
                    env={"LANG": "C.UTF-8", "TZ": "UTC"},
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    pass_fds=[theirs.fileno()],
                )
            await self._receive(wire.EndOfRows)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self.close()
            if isinstance(error, _GONE):
                raise RunError("the SQL engine did not start") from error
            raise

    async def _send(self, frame: wire.SqlFrame) -> None:
        assert self._stream is not None
        await self._stream.send(wire.encode(frame))

    async def _receive(self, kind: type[T]) -> T:
        head = await self._reader.receive_exactly(4)
        body = await self._reader.receive_exactly(int.from_bytes(head, "big"))
        frame = wire.decode(body)
        if isinstance(frame, wire.SqlFailed):
            raise SqlEngineError(frame.message)
        assert isinstance(frame, kind)
        return frame

    async def close(self) -> None:
        """End the process."""
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


def _joined(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The rows in frames of about ROWS_BYTES."""
    pieces, size = [], 0
    for piece in lines:
        pieces.append(piece)
        size += len(piece)
        if size >= ROWS_BYTES:
            yield b"".join(pieces)
            pieces, size = [], 0
    if pieces:
        yield b"".join(pieces)

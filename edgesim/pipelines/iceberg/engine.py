"""The platform's side of the Iceberg process, which starts with the first request.

Requests are served one after another.  A request that is cancelled or fails half-way ends the
process, and the next one starts it anew.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import TypeVar

import anyio
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream, IncompleteRead
from anyio.streams.buffered import BufferedByteReceiveStream

from edgesim import foreign
from edgesim.config.iceberg_limits import IcebergLimits
from edgesim.errors import RunError
from edgesim.pipelines.iceberg import wire
from edgesim.pipelines.process_frames import LENGTH_BYTES
from edgesim.pipelines.process_limits import OUT_OF_MEMORY

_GONE = (BrokenResourceError, ClosedResourceError, EndOfStream, IncompleteRead)
CLOSE_SECONDS = 5.0
_TIME = "it needs more than the CPU time of a request (iceberg.request_cpu_seconds)"
_MEMORY = "it needs more than the memory of a request (iceberg.memory_bytes)"
_REASONS = {
    -signal.SIGPROF: _TIME,
    -signal.SIGALRM: "it did not end",
    OUT_OF_MEMORY: _MEMORY,
    -signal.SIGABRT: _MEMORY,  # by which pyarrow ends if it cannot get memory
}

T = TypeVar("T", bound=wire.IcebergFrame)


class TableError(RunError):
    """The metadata of a table cannot be made as asked; ``kind`` is that of ``TableRefused``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class IcebergEngine:
    """One process for all tables."""

    def __init__(self, limits: IcebergLimits | None = None) -> None:
        self._limits = limits or IcebergLimits()
        self._asking = anyio.Lock()
        self._process: foreign.Process | None = None
        self._stream: foreign.Stream | None = None
        self._reader: BufferedByteReceiveStream

    async def ask(self, request: wire.IcebergFrame, answer: type[T]) -> T:
        """Send a request and return its answer; TableError if it is refused.

        RunError if the process ends meanwhile, as it does beyond a limit.
        """
        async with self._asking:
            try:
                if self._process is None or self._process.returncode is not None:
                    await self._close()
                    await self._start()
                assert self._stream is not None
                await self._stream.send(wire.FRAMES.encode(request))
                return await self._receive(answer)
            except TableError:
                raise
            except BaseException as error:
                process = self._process
                with anyio.CancelScope(shield=True):
                    await self._close()
                if isinstance(error, _GONE):
                    raise RunError(_problem(process, request)) from error
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
                [
                    *(sys.executable, "-P", "-m", module, str(theirs.fileno())),
                    *(str(self._limits.memory_bytes), str(self._limits.request_cpu_seconds)),
                ],
                env={"LANG": "C.UTF-8", "TZ": "UTC"},
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=[theirs.fileno()],
            )
        await self._receive(wire.Ready)

    async def _receive(self, kind: type[T]) -> T:
        head = await self._reader.receive_exactly(LENGTH_BYTES)
        body = await self._reader.receive_exactly(int.from_bytes(head, "big"))
        frame = wire.FRAMES.decode(body)
        if isinstance(frame, wire.TableRefused):
            raise TableError(frame.kind, frame.message)
        assert isinstance(frame, kind)
        return frame

    async def _close(self) -> None:
        stream, self._stream = self._stream, None
        process, self._process = self._process, None
        await foreign.end(process, stream, CLOSE_SECONDS)


def _problem(process: foreign.Process | None, request: wire.IcebergFrame) -> str:
    status = process.returncode if process is not None else None
    reason = _REASONS.get(status or 0, f"status {status}; the next request starts it anew")
    return f"the Iceberg process ended during {type(request).__name__}: {reason}"

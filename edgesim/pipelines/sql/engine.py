"""The platform's side of the SQL process."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path

import anyio.lowlevel

from edgesim.config.sql_limits import SqlLimits
from edgesim.errors import RunError
from edgesim.pipelines.library_process import (
    LibraryProcess,
    ProcessEndedError,
    RequestRefusedError,
)
from edgesim.pipelines.process_limits import OUT_OF_MEMORY
from edgesim.pipelines.sql import wire

PREVIEW_BYTES_MAX = 1 << 20
"""Maximum size of the rows of a preview, as JSON."""
_JSON = wire.FileFormat("json", "uncompressed", 1)

_PROBLEMS = {
    wire.TIME: "it needs more than the CPU time of a batch (sql.batch_cpu_seconds)",
    wire.MEMORY: "it needs more than the memory of a batch (sql.memory_bytes)",
}
_REASONS = {
    -signal.SIGPROF: wire.TIME,
    OUT_OF_MEMORY: wire.MEMORY,
    -signal.SIGABRT: wire.MEMORY,  # by which DataFusion ends if it cannot get memory
    -signal.SIGSEGV: wire.CRASH,  # a stack that is too deep, for example
    -signal.SIGBUS: wire.CRASH,
    -signal.SIGILL: wire.CRASH,
}
_ENVIRONMENT = {
    "TOKIO_WORKER_THREADS": "1",
    # Memory of a batch is kept for the next one, up to some tens of MB: to give it back and have it
    # mapped again takes a fifth of the CPU time.
    "MIMALLOC_PURGE_DELAY": "1000",  # ms
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_MMAP_THRESHOLD_": str(8 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
    # DataFusion's memory is mapped as it is needed: of what is reserved before, a limit says
    # nothing, and mimalloc takes no notice if it is refused later.
    "MIMALLOC_DISALLOW_ARENA_ALLOC": "1",
    "MIMALLOC_ARENA_EAGER_COMMIT": "0",
}


class SqlEngineError(RequestRefusedError):
    """The engine refuses a query, or fails to run it."""


class EngineEndedError(RunError):
    """The process has ended during a request; ``reason`` is a limit, or ``CRASH``.

    ``is_own``: the engine ended itself; otherwise it was killed from outside, as far as is known.
    """

    def __init__(self, status: int | None) -> None:
        self.reason = _REASONS.get(status or 0, wire.CRASH)
        self.is_own = status is not None and status in _REASONS
        text = _PROBLEMS.get(self.reason, f"status {status}")
        super().__init__(f"the SQL engine ended during a statement: {text}")


class SqlEngine(LibraryProcess[wire.SqlFrame]):
    """One process; ``scratch`` is the folder for rows and results on their way to a bucket."""

    def __init__(self, scratch: Path, limits: SqlLimits | None = None) -> None:
        module = "edgesim.pipelines.sql.process"
        super().__init__("SQL engine", module, wire.FRAMES, wire.SqlReady, _ENVIRONMENT)
        self._scratch = scratch
        self._rows = scratch / "rows"
        self._results = scratch / "results"
        self.limits = limits or SqlLimits()

    async def describe(
        self, query: wire.Query, form: wire.FileFormat = _JSON
    ) -> list[wire.ResultColumn]:
        """The columns of a query's result.  SqlEngineError if a pipeline cannot run it."""
        return (await self.describe_columns(query, form)).columns

    async def describe_columns(
        self, query: wire.Query, form: wire.FileFormat = _JSON
    ) -> wire.Columns:
        """Like ``describe``, with the result's Arrow schema."""
        try:
            async with self._request():
                await self._send(wire.Describe(query, form, self.limits.batch_cpu_seconds))
                return await self._receive(wire.Columns)
        except EngineEndedError as error:
            if error.is_own:
                problem = _PROBLEMS.get(error.reason, "it is too long or too deep for the engine")
                raise SqlEngineError(f"the statement cannot be planned: {problem}") from error
            raise

    async def transform(
        self,
        query: wire.Query,
        form: wire.FileFormat,
        name: str,
        batches: Iterator[tuple[Sequence[bytes], float]],
        dropped: Callable[[Sequence[wire.RowDrop]], None],
    ) -> tuple[Path, wire.Transformed]:
        """Run a query over batches of rows, each with the CPU seconds that it may take.

        Returns the file of the result, which the caller removes.  ``dropped`` is called for each
        batch with its rows that fail; the next batch is taken before that, and written while the
        process works.  EngineEndedError if the process ends with a batch; RunError if the disk does
        not take its rows or the result.
        """
        async with self._request():
            path, seconds = self._results / name, self.limits.batch_cpu_seconds
            files = [self._rows / f"{name}.{number}" for number in range(2)]
            await self._send(wire.Transform(query, form, str(path), seconds))
            await self._receive(wire.SqlReady)
            waiting = 0
            try:
                for (chunks, seconds), file in zip(batches, cycle(files), strict=False):
                    await _write(file, chunks)
                    await self._send(wire.Rows(str(file), seconds))
                    waiting += 1
                    if waiting == len(files):
                        dropped((await self._receive(wire.RowsDone)).drops)
                        waiting -= 1
                await self._send(wire.EndOfRows())
                for _ in range(waiting):
                    dropped((await self._receive(wire.RowsDone)).drops)
                return path, await self._receive(wire.Transformed)
            except SqlEngineError as error:  # the process may have further rows: it has to end
                raise RunError(error.problem) from error
            finally:
                for file in files:
                    file.unlink(missing_ok=True)

    async def preview(self, parquet: AsyncIterator[bytes], rows: int) -> wire.Previewed:
        """The first rows of a Parquet file; SqlEngineError if it cannot be read.

        EngineEndedError if its rows need more time or memory than a batch may.
        """
        async with self._request():
            path = self._rows / "preview.parquet"
            try:
                with path.open("wb") as file:
                    async for chunk in parquet:
                        file.write(chunk)
                seconds = self.limits.batch_cpu_seconds
                await self._send(wire.Preview(str(path), rows, PREVIEW_BYTES_MAX, seconds))
                return await self._receive(wire.Previewed)
            except OSError as error:
                problem = f"{path}: cannot write the file for its preview: {error.strerror}"
                raise RunError(problem) from error
            finally:
                path.unlink(missing_ok=True)

    @asynccontextmanager
    async def _request(self) -> AsyncIterator[None]:
        try:
            async with self._exchange():
                yield
        except ProcessEndedError as error:
            raise EngineEndedError(error.status) from error

    def _arguments(self) -> list[str]:
        """Also makes the folders, without the files of an earlier process."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        for folder in (self._rows, self._results):
            folder.mkdir(parents=True)
        return [str(self._rows), str(self._results), str(self.limits.memory_bytes)]

    def _refusal(self, answer: wire.SqlFrame) -> SqlEngineError | None:
        return SqlEngineError(answer.message) if isinstance(answer, wire.SqlFailed) else None


async def _write(path: Path, chunks: Sequence[bytes]) -> None:
    """Write rows where the process reads them; its socket would copy them four times.

    A file of earlier rows is written over, which takes less time than a new one.  RunError if the
    disk does not take them.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
                await anyio.lowlevel.checkpoint()  # a large batch must not block other tasks
            file.truncate()
    except OSError as error:
        problem = f"{path}: cannot write rows for the SQL engine: {error.strerror}"
        raise RunError(problem) from error

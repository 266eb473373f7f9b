"""The durable buffer of a pipeline or a stream: ``append`` returns once its records are safe.

Callers in the same turn of the event loop share one write and one sync (group commit).  Records are
appended to the open window; ``seal`` ends it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
import anyio.lowlevel
import structlog

from edgesim.backoff import Backoff
from edgesim.clock import Clock
from edgesim.errors import EdgesimError, PlatformError
from edgesim.pipelines.log import Segment, WriteAheadLog
from edgesim.tracing import current
from edgesim.writer_thread import WriterThread

COMMIT_BYTES_MAX = 1 << 22
"""Maximum bytes of one write and sync; further callers wait for the next, so other tasks run."""
RECOVER_BYTES_MAX = 1 << 20
"""Maximum size of a log that is recovered at once; a larger one is recovered in pieces."""

RECOVER_RETRY_SECONDS, RECOVER_RETRY_SECONDS_MAX = 0.5, 30.0

T = TypeVar("T")

log = structlog.get_logger()


class WindowRules(Protocol):
    """The decisions about windows that a Buffer leaves to its owner."""

    def new_key(self) -> str:
        """The key of a window that opens now; not empty."""

    def is_full(self, window: Segment) -> bool:
        """True if the window ends now, because of its size."""

    async def may_resume(self, window: Segment) -> bool:
        """True if a window recovered without a seal may take more records."""


class _Entry:
    """One call that waits for its commit to the log."""

    def __init__(self, lines: bytes, rows: int) -> None:
        self.lines = lines
        self.rows = rows
        self.trace = current.get()
        self.committed = False
        self.error: Exception | None = None


class Buffer:
    """The write-ahead log with its writer thread; ``kind`` and ``name`` are for messages."""

    def __init__(
        self,
        kind: str,
        name: str,
        folder: Path,
        clock: Clock,
        rules: WindowRules,
        first_number: int = 1,
    ) -> None:
        self._kind = kind
        self._name = name
        self._clock = clock
        self._rules = rules
        self._log = WriteAheadLog(folder, RECOVER_BYTES_MAX, first_number)
        self._recovering = anyio.Lock()
        self._is_settled = not self._log.waiting and self._log.open is None
        self._refusal = ""
        self._entries: list[_Entry] = []
        self._thread = WriterThread(f"{kind} {name}")
        self._writing = anyio.Lock(fast_acquire=True)
        self._written = anyio.Event()
        self._opened = anyio.Event()
        self._sealed = anyio.Event()
        self.records = 0
        self.bytes = 0

    @property
    def open(self) -> Segment | None:
        """The window that takes records; None if there is none."""
        return self._log.open

    @property
    def sealed(self) -> list[Segment]:
        """The complete windows, oldest first."""
        return self._log.sealed

    @property
    def windows(self) -> list[Segment]:
        """All windows that are in the log, oldest first."""
        log = self._log
        return [*log.unsealed, *log.sealed, *([] if log.open is None else [log.open])]

    @property
    def pending(self) -> int:
        """Number of records in the log.  A file that is not recovered yet counts as one record."""
        window = self._log.open.rows if self._log.open else 0
        rows = sum(segment.rows for segment in self._log.sealed + self._log.unsealed)
        return window + rows + len(self._log.waiting)

    @property
    def is_recovered(self) -> bool:
        """False while a file of an earlier run is not read yet."""
        return not self._log.waiting

    async def until_opened(self) -> None:
        """Wait until records have arrived since the last call."""
        await self._opened.wait()
        self._opened = anyio.Event()

    async def until_sealed(self) -> None:
        """Wait until a window has ended since the last call."""
        await self._sealed.wait()
        self._sealed = anyio.Event()

    async def append(self, lines: bytes, rows: int) -> None:
        """Make records durable; PlatformError if that fails."""
        if not self._is_settled:
            await self.recover()
        entry = _Entry(lines, rows)
        self._entries.append(entry)
        # Group commit: callers in the same turn of the event loop share one write and one sync.
        await anyio.lowlevel.checkpoint()
        while not entry.committed:
            if self._writing.locked():
                await self._written.wait()
                continue
            await self._commit()
            if not entry.committed:
                await anyio.lowlevel.checkpoint()
        if entry.error is not None:
            where = f"{self._kind.capitalize()} {self._name}"
            raise PlatformError(f"{where}: {entry.error}") from entry.error

    async def recover(self) -> None:
        """Read an earlier run's files, in pieces, and decide which window to resume."""
        async with self._recovering:
            if self._is_settled:
                return
            for _ in self._log.recover():
                await anyio.lowlevel.checkpoint()
            if self._log.open is not None:
                if await self._rules.may_resume(self._log.open):
                    self._opened.set()
                else:
                    self._log.retire()
            self._is_settled = True
        if self._log.unsealed:
            await self.seal()

    async def recover_rest(self) -> None:
        """Retry the files that ``recover`` could not read, with backoff, until none is left.

        An example is a damaged file on a full disk: its damaged bytes cannot be set aside yet.
        """
        backoff = Backoff(RECOVER_RETRY_SECONDS, RECOVER_RETRY_SECONDS_MAX)
        while self._log.waiting:
            await anyio.sleep(backoff.failed())
            await self._thread.run(self._recover_waiting)
            if self._log.unsealed:
                await self.seal()
            self._sealed.set()

    def _recover_waiting(self) -> None:
        for _ in self._log.recover():
            pass

    async def seal(self) -> None:
        """End the open window; it stays open, with a message in the log, if that fails."""
        async with self._sole_writer():
            await self._seal_all()

    async def forget(self, segment: Segment) -> None:
        """Remove a window whose records are stored elsewhere."""
        await self._thread.run(partial(self._log.forget, segment))

    async def do(self, step: Callable[[], T]) -> T:
        """Run a blocking step on the log's thread, after the writes that were asked for before."""
        return await self._thread.run(step)

    def close(self) -> None:
        """Close the log's files; their contents are recovered at the next start."""
        self._thread.close()
        self._log.close()

    @asynccontextmanager
    async def _sole_writer(self) -> AsyncIterator[None]:
        async with self._writing:
            try:
                yield
            finally:
                self._written.set()
                self._written = anyio.Event()

    async def _commit(self) -> None:
        async with self._sole_writer():
            entries = self._next_entries()
            rows = sum(entry.rows for entry in entries)
            lines = b"".join(entry.lines for entry in entries)
            now, key = self._clock.now(), "" if self._log.open else self._rules.new_key()
            error: Exception | None = None
            try:
                window = await self._thread.run(partial(self._log.append, now, key, lines, rows))
            except (EdgesimError, OSError) as failure:
                error = failure
                self._report_refusal(rows, str(failure))
            else:
                self._refusal = ""
                self.records += rows
                self.bytes += len(lines)
                self._opened.set()
                for entry in entries:
                    window.sources.add(entry.trace)
            for entry in entries:
                entry.committed = True
                entry.error = error
            if error is None and self._rules.is_full(window):
                await self._seal_all()

    def _report_refusal(self, rows: int, reason: str) -> None:
        if reason != self._refusal:  # log each cause once
            place = {self._kind: self._name}
            log.error("buffer refuses records", **place, rows=rows, error=reason)
        self._refusal = reason

    def _next_entries(self) -> list[_Entry]:
        """The entries of the next commit, oldest first; at least one."""
        size = 0
        for count, entry in enumerate(self._entries):
            size += len(entry.lines)
            if count and size > COMMIT_BYTES_MAX:
                taken, self._entries = self._entries[:count], self._entries[count:]
                return taken
        taken, self._entries = self._entries, []
        return taken

    async def _seal_all(self) -> None:
        while self._log.unsealed or self._log.open is not None:
            key = self._rules.new_key() if self._log.unsealed else ""
            try:
                await self._thread.run(partial(self._log.seal, key))
            except (EdgesimError, OSError) as error:  # the window stays open, with all records
                place = {self._kind: self._name}
                log.error("buffer cannot end its window", **place, error=str(error))
                return
            self._sealed.set()

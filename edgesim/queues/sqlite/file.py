"""The SQLite file under the queues: opening, committing, and freeing unused space.

``synchronous=FULL`` flushes the write-ahead log at each commit: a message survives a power cut once
``send`` has returned.  NORMAL is five times faster for single messages and was rejected for that
reason.

Everything but opening and closing runs in the store's own thread (see WriterThread), in which
operations that arrived meanwhile share one transaction and one sync.

Unused pages are returned to the file system in steps of ``STEP_PAGES`` (incremental auto_vacuum).
A file of an earlier edgesim needs a VACUUM first, whose duration is proportional to the content; it
runs as soon as the file is almost empty.  Copying a large file at the start was rejected: it would
delay the start by minutes, and needs as much disk space again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from edgesim import durable
from edgesim.clock import Clock
from edgesim.errors import RunError
from edgesim.queues.sqlite import statements as sql
from edgesim.timeline import ClockMark, Timeline
from edgesim.writer_thread import Job, WriterThread

STEP_PAGES = 250
FREE_PAGES_KEPT = 1_000
"""Unused pages (4 KB) kept for the next messages; a quarter of the used ones if that is more."""
VACUUM_PAGES_MAX = 1_000
"""Largest content that is rewritten in one go: about 20 ms."""
MARK_SECONDS = 1.0
"""Minimum interval between two records of both clocks, written with a commit."""
CACHE_KIBIBYTES = 32 << 10
"""Ids are random, so a step of a purge touches pages all over the index of ids."""
LOG_BYTES_MAX = 4 << 20
"""Size to which the write-ahead log is truncated after a checkpoint."""

_INCREMENTAL = 2
T = TypeVar("T")

log = structlog.get_logger()


class StoreFile:
    """The one connection to a store's file; every failure is a RunError that names the file."""

    def __init__(self, path: str, clock: Clock) -> None:
        """Open or create it; ``path`` is a file name or SQLite's own ``:memory:``."""
        self.path = path
        self._clock = clock
        self._files = [] if path == ":memory:" else [Path(path), Path(f"{path}-wal")]
        self._identities: list[durable.Identity | None] = []
        self._failure = ""
        with self.explained():
            self.connection = durable.connect(
                path, timeout=0, isolation_level="IMMEDIATE", check_same_thread=False
            )
        try:
            with self.explained():
                self._prepare()
                row = self.connection.execute(sql.READ_MARK).fetchone()
        except BaseException:
            self.connection.close()
            raise
        self._mark = None if row is None else ClockMark(*row)
        self._timeline = Timeline(clock, path, self._mark)
        self._thread = None if path == ":memory:" else WriterThread("queue store", self._run_batch)

    def _prepare(self) -> None:
        execute = self.connection.execute
        execute("PRAGMA auto_vacuum = INCREMENTAL")  # effective only before the first write
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA journal_mode = WAL")
        execute(f"PRAGMA journal_size_limit = {LOG_BYTES_MAX}")
        execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
        execute(durable.sqlite_pragma())
        self._create()
        with self.connection:
            execute(sql.CLOCK)
            execute(sql.GENERATION)
        self._is_incremental = self._pragma("auto_vacuum") == _INCREMENTAL
        self._may_vacuum = not self._is_incremental

    def _create(self) -> None:
        """Create the schema in an empty file; refuse any schema that is not edgesim's."""
        version = self._pragma("user_version")
        (tables,) = self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version == 0 and tables == 0:
            self.connection.executescript(sql.SCHEMA)
        elif version not in {sql.SCHEMA_VERSION, sql.PURGED_VERSION}:
            raise RunError(
                f"{self.path}: not a queue store of this edgesim (schema {version}, "
                f"not {sql.SCHEMA_VERSION}); move the file away to start empty"
            )
        columns = {name for (name,) in self.connection.execute(sql.COLUMNS)}
        for column, statement in sql.ADDED.items():
            if column not in columns:  # created by an earlier edgesim
                self.connection.execute(statement)

    def close(self) -> None:
        """Close the file."""
        if self._thread is not None:
            self._thread.close()
        self.connection.close()

    async def run(
        self,
        step: Callable[[sqlite3.Connection], T],
        then: Callable[[T], None] | None = None,
    ) -> T:
        """Run a step as one transaction, durable on return.

        The step may run a second time, if another step in the same transaction failed.  ``then`` is
        called with its result once it is committed, before any later step begins.
        """
        return await self._do(Job(partial(step, self.connection), then))

    async def run_alone(self, step: Callable[[], T]) -> T:
        """Run a step that makes its own transactions; it runs once."""
        return await self._do(Job(step, is_alone=True))

    async def _do(self, job: Job[T]) -> T:
        if self._thread is not None:
            return await self._thread.do(job)
        self._run_batch([job])
        return job.result()

    def _run_batch(self, jobs: Sequence[Job[Any]]) -> None:
        if len(jobs) > 1 and self._have_run_together(jobs):
            return
        for job in jobs:
            with job.keeping_errors():
                if job.is_alone:
                    result = job.step()
                else:
                    with self.transaction():
                        result = job.step()
                job.finish(result)

    def _have_run_together(self, jobs: Sequence[Job[Any]]) -> bool:
        """Run the steps in one transaction; False, with nothing done, if one of them fails."""
        try:
            with self.transaction():
                results = [job.step() for job in jobs]
        except Exception:  # noqa: BLE001 (each then runs alone and raises its own)
            return False
        for job, result in zip(jobs, results, strict=True):
            job.finish(result)
        return True

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit all of the block's statements or none; no ``await`` inside.

        RunError if the file was deleted or replaced, and permanently after a failed sync: later
        commits would not be durable.
        """
        if self._failure:
            raise RunError(f"{self.path}: {self._failure} earlier", "restart edgesim")
        if self._identities:
            self._check_in_place()
        mark = self._mark
        try:
            with self.explained(), self.connection as db:
                yield db
                if db.in_transaction:
                    mark = self._write_mark()
        except RunError as error:
            if durable.is_failed_sync(error.__cause__):
                self._failure = str(error.__cause__)
            raise
        self._mark = mark
        self._check_in_place()

    def _check_in_place(self) -> None:
        if not self._identities:
            self._identities = [durable.identity(file) for file in self._files]
        for file, identity in zip(self._files, self._identities, strict=True):
            durable.check_in_place(file, identity)

    @contextmanager
    def unflushed(self) -> Iterator[None]:
        """Make transactions that a power cut may undo until the next flush or ``checkpoint``.

        Their order holds: a later flush includes them.
        """
        self.connection.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            self.connection.execute(durable.sqlite_pragma())

    # --- time ---

    def shift(self) -> float:
        """Offset of stored times behind Unix time, in seconds; see Timeline."""
        return self._timeline.look().shift

    def mark_time(self, newest: float) -> None:
        """Record both clocks at the start.

        ``newest`` is the time of the newest message (Unix seconds): the only known time in a file
        written by an earlier edgesim.
        """
        if self._mark is None:
            self._timeline = Timeline(self._clock, self.path, ClockMark(newest))
        self._mark = None
        with self.transaction() as db:
            db.execute("BEGIN IMMEDIATE")

    def _write_mark(self) -> ClockMark | None:
        """Record both clocks unless they were recorded recently; returns the current record."""
        now, last = self._timeline.look(), self._mark
        if last and last.shift == now.shift and 0 <= now.unix - last.unix < MARK_SECONDS:
            return last
        self.connection.execute(sql.WRITE_MARK, (now.unix, now.boot, now.since_boot, now.shift))
        return now

    # --- freeing space ---

    def shrink(self) -> bool:
        """Return one step of unused pages to the file system; True if there are more."""
        with self.explained():
            unused = self._pragma("freelist_count")
            used = self._pragma("page_count") - unused
            if not self._is_incremental:
                return self._vacuum(used)
            excess = unused - max(FREE_PAGES_KEPT, used // 4)
            if excess <= 0:
                return False
            # Not execute(), which runs one step of the statement: one page.
            self.connection.executescript(f"PRAGMA incremental_vacuum({min(excess, STEP_PAGES)})")
            return excess > STEP_PAGES

    def checkpoint(self) -> None:
        """Flush all, and copy the write-ahead log into the file, which shrinks only then."""
        with self.explained():
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _vacuum(self, used: int) -> bool:
        """Rewrite a small file, so that it can be shrunk in steps; tried once."""
        if used > VACUUM_PAGES_MAX or not self._may_vacuum:
            return False
        self._may_vacuum = False
        try:
            self.connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self.connection.execute("VACUUM")
        except sqlite3.OperationalError as error:  # VACUUM needs space for a copy
            log.warning("queue store not compacted", file=self.path, error=str(error))
            return False
        self._is_incremental = True
        return True

    def _pragma(self, name: str) -> int:
        value: int = self.connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Convert SQLite's failures to RunError: the file, the reason, and the fix if known."""
        try:
            yield
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            if name.startswith("SQLITE_BUSY"):
                problem = "in use by another process; stop the edgesim that runs on this state"
            elif name in {"SQLITE_NOTADB", "SQLITE_CORRUPT"}:
                problem = (
                    f"damaged or not a queue store ({error}); move the file away to start empty"
                )
            else:
                problem = str(error)
            raise RunError(f"{self.path}: {problem}") from error

"""A SQLite file in which drivers keep their state, one thread writing.

Transactions run in a dedicated thread (see WriterThread), because a commit waits for the disk.
Single statements are read on the calling thread, by a second connection that sees only committed
data.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any, TypeVar

from edgesim import durable
from edgesim.errors import RunError
from edgesim.writer_thread import WriterThread, has_ordinary_loop

_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
T = TypeVar("T")


class Database:
    """A connection that commits durably; failures are raised as RunError with the cause kept."""

    def __init__(
        self, path: Path | None, schema: str, cure: str = "", what: str = "r2 state"
    ) -> None:
        """``path`` None keeps everything in memory; ``schema`` creates missing tables.

        ``cure`` is the fix to suggest if the file is damaged; ``what`` names the store in errors.
        """
        self._cure = cure
        self.name = f"{what} memory" if path is None else f"{what} {path}"
        self._files = [] if path is None else [path, path.with_name(f"{path.name}-wal")]
        self._identities: list[durable.Identity | None] = []
        self._failure = ""
        self._thread = WriterThread(what)
        self._is_threaded = path is not None and has_ordinary_loop()
        self._writing: int | None = None  # id of the thread that has a transaction open
        with self._explained():
            self._connection = self._reading = self._connect(path)
        try:
            with self._explained():
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute(durable.sqlite_pragma())
                self._connection.executescript(schema)
                if self._is_threaded:
                    self._reading = self._connect(path)
                    self._reading.execute("PRAGMA query_only = ON")
            if path is not None:
                durable.flush_folder(path.parent)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _connect(path: Path | None) -> sqlite3.Connection:
        connection = durable.connect(
            path or ":memory:", isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA busy_timeout = 5000")
        return connection

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return all its rows; change data only inside a transaction."""
        connection = self._connection if self._writing == get_ident() else self._reading
        with self._explained():
            return connection.execute(sql, parameters).fetchall()

    def run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of parameters."""
        with self._explained():
            self._connection.executemany(sql, rows)

    async def write(self, step: Callable[[], T]) -> T:
        """Run ``step`` in one transaction, durable on return; see WriterThread."""

        def commit() -> T:
            with self.transaction():
                return step()

        return await self._thread.run(commit) if self._is_threaded else commit()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Like ``write``, on the calling thread, for a store not used yet; no ``await`` inside."""
        self._writing = get_ident()
        try:
            self.run("BEGIN IMMEDIATE")
            yield
            self.run("COMMIT")
            self._check_in_place()
        except BaseException:
            if self._connection.in_transaction:
                self.run("ROLLBACK")
            raise
        finally:
            self._writing = None

    def _check_in_place(self) -> None:
        """RunError if a file of the database was deleted or replaced: the commit is not durable."""
        if not self._identities:
            self._identities = [durable.identity(file) for file in self._files]
        for file, identity in zip(self._files, self._identities, strict=True):
            durable.check_in_place(file, identity)

    def close(self) -> None:
        """Close the file."""
        self._thread.close()
        self._reading.close()
        self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        if self._failure:
            raise RunError(f"{self.name}: {self._failure} earlier", "restart edgesim")
        try:
            yield
        except sqlite3.Error as error:
            if durable.is_failed_sync(error):  # the file may lack data SQLite counts as written
                self._failure = str(error)
            cure = self._cure if is_damage(error) else ""
            raise RunError(f"{self.name}: {error}", cure) from error


def is_damage(error: BaseException | None) -> bool:
    """True if SQLite reports that the file is damaged or not a database."""
    return getattr(error, "sqlite_errorname", "").startswith(_DAMAGED)

"""The SQLite file in which R2's drivers remember things.

It runs inline: statements take microseconds, a commit one fdatasync, and a thread would make the
driver nondeterministic.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgesim import durable
from edgesim.errors import RunError

_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


class Database:
    """A connection that commits durably; each failure is raised as RunError, its cause kept."""

    def __init__(self, path: Path | None, schema: str, cure: str = "") -> None:
        """``path`` None keeps everything in memory; ``schema`` creates what is not there yet.

        ``cure`` is what to do if the file is damaged.
        """
        self._cure = cure
        self.name = "r2 state memory" if path is None else f"r2 state {path}"
        self._files = [] if path is None else [path, path.with_name(f"{path.name}-wal")]
        self._identities: list[durable.Identity | None] = []
        self._failure = ""
        with self._explained():
            self._connection = durable.connect(path or ":memory:", isolation_level=None)
        try:
            with self._explained():
                self._connection.execute("PRAGMA busy_timeout = 5000")
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute(durable.sqlite_pragma())
                self._connection.executescript(schema)
            if path is not None:
                durable.flush_folder(path.parent)
        except BaseException:
            self._connection.close()
            raise

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """One statement and all its rows."""
        with self._explained():
            return self._connection.execute(sql, parameters).fetchall()

    def run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """One statement for each row of parameters."""
        with self._explained():
            self._connection.executemany(sql, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block's statements or none; no ``await`` inside."""
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
            self._check_in_place()
        except BaseException:
            if self._connection.in_transaction:
                self.run("ROLLBACK")
            raise

    def _check_in_place(self) -> None:
        """RunError if a file of the database was deleted or replaced: the commit is not durable."""
        if not self._identities:
            self._identities = [durable.identity(file) for file in self._files]
        for file, identity in zip(self._files, self._identities, strict=True):
            durable.check_in_place(file, identity)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        if self._failure:
            raise RunError(f"{self.name}: {self._failure} earlier", "restart edgesim")
        try:
            yield
        except sqlite3.Error as error:
            if durable.is_failed_sync(error):  # the file may lack what SQLite takes for written
                self._failure = str(error)
            cure = self._cure if is_damage(error) else ""
            raise RunError(f"{self.name}: {error}", cure) from error


def is_damage(error: BaseException | None) -> bool:
    """Whether SQLite says that the file is damaged or not a database."""
    return getattr(error, "sqlite_errorname", "").startswith(_DAMAGED)

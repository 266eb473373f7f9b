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


class Database:
    """A connection that commits durably; each failure is raised as RunError, its cause kept."""

    def __init__(self, path: Path | None, schema: str) -> None:
        """``path`` None keeps everything in memory; ``schema`` creates what is not there yet."""
        self._name = "memory" if path is None else str(path)
        with self._explained():
            self._connection = durable.connect(path or ":memory:", isolation_level=None)
            self._connection.execute("PRAGMA busy_timeout = 5000")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(durable.sqlite_pragma())
            self._connection.executescript(schema)

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
        except BaseException:
            if self._connection.in_transaction:
                self.run("ROLLBACK")
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise RunError(f"r2 state {self._name}: {error}") from error

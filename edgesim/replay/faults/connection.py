"""A SQLite connection on a simulated disk, which tracks whether its commits are durable."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL = 2
"""Value of ``PRAGMA synchronous`` for which a WAL-mode commit is flushed before it returns."""

_NO_WRITES = {"SELECT", "PRAGMA", "BEGIN", "ROLLBACK"}
_BEGIN = {"INSERT", "UPDATE", "DELETE", "REPLACE"}

Commit = Callable[[], Callable[[], None]]
"""Called before a commit; may raise to prevent it. The returned function is called after it."""


class FaultyConnection(sqlite3.Connection):
    """Connection whose commits all pass through the ``commit`` of ``simulate``."""

    before: Mapping[Path, bytes | None]
    """SQLite's files at the last durable commit, while ``is_durable`` is False."""
    is_durable = True
    _commit: Commit | None = None
    _read: Callable[[], Mapping[Path, bytes | None]]
    _seen = 0  # rows changed up to the last commit

    def simulate(self, read: Callable[[], Mapping[Path, bytes | None]], commit: Commit) -> None:
        """Begin the simulation; ``read`` returns the database's files."""
        self._read = read
        self._commit = commit

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        """Like sqlite3's; a write outside a transaction, or COMMIT, is a commit."""
        if "WAL_CHECKPOINT" in sql.upper():
            return self._checkpoint(sql, *arguments)
        if _word(sql) in _NO_WRITES or (self._in_transaction(sql) and _word(sql) != "COMMIT"):
            return super().execute(sql, *arguments)
        with self._committing():
            return super().execute(sql, *arguments)

    def _checkpoint(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        """Run a checkpoint, which makes all earlier commits durable."""
        cursor = super().execute(sql, *arguments)
        self.is_durable = self.is_durable or self._pragma("synchronous") > 0
        return cursor

    def executemany(self, sql: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
        """Like sqlite3's."""
        if self._in_transaction(sql):
            return super().executemany(sql, rows)
        with self._committing():
            return super().executemany(sql, rows)

    def executescript(self, sql: str, /) -> sqlite3.Cursor:
        """Like sqlite3's."""
        with self._committing():
            return super().executescript(sql)

    def commit(self) -> None:
        """Like sqlite3's."""
        if not self.in_transaction:
            return
        with self._committing():
            super().commit()

    def __exit__(self, *error: Any) -> Any:  # noqa: PYI036
        if error[0] is not None or not self.in_transaction:
            return super().__exit__(*error)
        try:
            self.commit()
        except BaseException:
            self.rollback()
            raise
        return False

    def _in_transaction(self, sql: str) -> bool:
        """True if the statement is committed later: sqlite3 may begin a transaction implicitly."""
        return self.in_transaction or (self.isolation_level is not None and _word(sql) in _BEGIN)

    @contextmanager
    def _committing(self) -> Iterator[None]:
        if self._commit is None:
            yield
            return
        done = self._commit()
        schema = self._pragma("schema_version")
        is_flushed = self._pragma("synchronous") >= FULL
        before = self._read() if self.is_durable and not is_flushed else None
        yield
        if self.total_changes == self._seen and schema == self._pragma("schema_version"):
            return  # nothing was written
        self._seen = self.total_changes
        if before is not None:
            self.before = before
        self.is_durable = is_flushed  # a flush makes earlier commits durable as well
        done()

    def _pragma(self, name: str) -> int:
        [(value,)] = super().execute(f"PRAGMA {name}").fetchall()
        return int(value)


def _word(sql: str) -> str:
    return sql.split(None, 1)[0].upper().rstrip(";")

"""``sqlite:PATH``: entries in one SQLite file.

Keys are stored as bytes, whose order SQLite compares as KV does.  Metadata precedes the value in a
row, so that a listing does not read the pages of large values.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from edgesim import durable
from edgesim.clock import Clock
from edgesim.database import Database
from edgesim.errors import ConfigError, RunError
from edgesim.kv.driver import KvDriver, KvEntry, KvKey
from edgesim.urls import path_of

DETERMINISTIC = True
EMBEDDED = True
SHARED = False
DURABLE = True
FILES = ("",)

EXPIRED_MAX = 100
"""Expired entries that one put removes."""
_CURE = "move the file away to start empty"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS kv_entry (
    id INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    key BLOB NOT NULL,
    expiration INTEGER,           -- Unix seconds; NULL: never
    metadata TEXT,                -- JSON
    value BLOB NOT NULL,
    UNIQUE (namespace, key)
) STRICT;
CREATE INDEX IF NOT EXISTS kv_entry_expiration ON kv_entry (expiration)
    WHERE expiration IS NOT NULL;
"""
_GET = """
SELECT value, expiration, metadata FROM kv_entry
WHERE namespace = ? AND key = ? AND (expiration IS NULL OR expiration > ?)"""
_PUT = """
INSERT INTO kv_entry (namespace, key, expiration, metadata, value) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (namespace, key) DO UPDATE SET
expiration = excluded.expiration, metadata = excluded.metadata, value = excluded.value"""
_DELETE = "DELETE FROM kv_entry WHERE namespace = ? AND key = ?"
_DELETE_EXPIRED = """
DELETE FROM kv_entry WHERE id IN (SELECT id FROM kv_entry WHERE expiration <= ? LIMIT ?)"""
_LIST = """
SELECT key, expiration, metadata FROM kv_entry
WHERE namespace = ? AND key > ? AND key >= ? AND (? IS NULL OR key < ?)
AND (expiration IS NULL OR expiration > ?) ORDER BY key LIMIT ?"""


@asynccontextmanager
async def open_kv(url: str, clock: Clock) -> AsyncIterator[KvDriver]:
    """Open the store in the URL's file; the file and its folders are created if missing."""
    path = path_of(url)
    if not path:
        raise ConfigError("backends", "kv", "sqlite: needs a path, as in sqlite:kv.db")
    file = Path(path).absolute()
    try:
        durable.make_folder(file.parent)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}: {error.filename}") from error
    database = Database(file, _SCHEMA, _CURE, "kv store")
    try:
        yield SqliteKv(database)
    finally:
        database.close()


@asynccontextmanager
async def open_in_memory() -> AsyncIterator[KvDriver]:
    """Open an empty store in memory."""
    database = Database(None, _SCHEMA, what="kv store")
    try:
        yield SqliteKv(database)
    finally:
        database.close()


class SqliteKv:
    """The entries of all namespaces in one table; see KvDriver for the contract."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, namespace: str, key: str, now: float) -> KvEntry | None:
        """See KvDriver."""
        rows = self._database.run(_GET, (namespace, key.encode(), now))
        return KvEntry(*rows[0]) if rows else None

    async def put(self, namespace: str, key: str, entry: KvEntry, now: float) -> None:
        """See KvDriver; removes some expired entries too."""
        row = (namespace, key.encode(), entry.expiration, entry.metadata, entry.value)

        def step() -> None:
            self._database.run(_DELETE_EXPIRED, (now, EXPIRED_MAX))
            self._database.run(_PUT, row)

        await self._database.write(step)

    async def delete(self, namespace: str, key: str) -> None:
        """See KvDriver."""
        await self._database.write(lambda: self._database.run(_DELETE, (namespace, key.encode())))

    async def list(
        self, namespace: str, prefix: str, after: str, limit: int, now: float
    ) -> Sequence[KvKey]:
        """See KvDriver."""
        first = prefix.encode()
        end = _after_prefix(first)
        row = (namespace, after.encode(), first, end, end, now, limit)
        return [
            KvKey(key.decode(), expiration, metadata)
            for key, expiration, metadata in self._database.run(_LIST, row)
        ]


def _after_prefix(prefix: bytes) -> bytes | None:
    """The first bytes after all that begin with ``prefix``; None if there are none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


_: type[KvDriver] = SqliteKv

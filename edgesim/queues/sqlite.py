"""``sqlite:PATH``: messages in one SQLite file.

Everything runs inline on one connection: each call is one short transaction, threads would break
the virtual clock, and a store that one process owns needs no pool.  The file is locked for as long
as it is open, so a second process is told so instead of taking leases of its own.

``synchronous=FULL`` flushes the write-ahead log at each commit: a message survives a power cut once
``send`` returned.  NORMAL is five times faster for single messages and was dropped for that reason.
Totals are counted in memory, because ``send`` reports them and counting rows would make each send
as slow as the backlog is long.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import anyio

from edgesim import durable
from edgesim.clock import Clock
from edgesim.errors import ConfigError, RunError
from edgesim.model import Message
from edgesim.queues.driver import Depth, NewMessage, QueueDriver
from edgesim.urls import path_of

DETERMINISTIC = True

_SCHEMA_VERSION = 1
_SCHEMA = f"""
BEGIN;
CREATE TABLE message (
    seq INTEGER PRIMARY KEY,      -- order of arrival in the store
    id TEXT NOT NULL UNIQUE,
    queue TEXT NOT NULL,
    body BLOB NOT NULL,
    content_type TEXT NOT NULL,
    timestamp_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    visible_at REAL NOT NULL,
    leased_until REAL             -- NULL: not leased
) STRICT;
CREATE INDEX message_visible ON message (queue, leased_until, visible_at);
CREATE INDEX message_age ON message (queue, timestamp_ms);
PRAGMA user_version = {_SCHEMA_VERSION};
COMMIT;
"""

_SEND = """
INSERT INTO message (id, queue, body, content_type, timestamp_ms, visible_at)
VALUES (?, ?, ?, ?, ?, ?)"""
_END_OLD_LEASES = "UPDATE message SET leased_until = NULL WHERE queue = ? AND leased_until <= ?"
_LEASED = "SELECT count(*) FROM message WHERE queue = ? AND leased_until IS NOT NULL"
# A lease is named by the delivery and the message: "1:<id>" ends when "2:<id>" begins.
_VISIBLE = """
SELECT seq, id, body, content_type, timestamp_ms, attempts + 1, (attempts + 1) || ':' || id
FROM message WHERE queue = ? AND leased_until IS NULL AND visible_at <= ?
ORDER BY visible_at, seq LIMIT ?"""
_LEASE = """
UPDATE message SET leased_until = ?, attempts = attempts + 1
WHERE seq IN (SELECT value FROM json_each(?))"""
# The + keeps the planner from an index of the whole queue: ids are found by their own.
_HELD = """
id IN (SELECT substr(value, instr(value, ':') + 1) FROM json_each(:leases))
AND attempts || ':' || id IN (SELECT value FROM json_each(:leases)) AND +queue = :queue"""
_ACK = f"DELETE FROM message WHERE {_HELD} RETURNING length(body)"
_RELEASE = f"UPDATE message SET leased_until = NULL, visible_at = :visible_at WHERE {_HELD}"
_ANEW = "queue = :to, attempts = 0, leased_until = NULL, visible_at = :visible_at"
_MOVE = f"UPDATE message SET {_ANEW} WHERE {_HELD} RETURNING length(body)"
_REDRIVE = f"""
UPDATE message SET {_ANEW} WHERE seq IN (
    SELECT seq FROM message WHERE queue = :queue ORDER BY timestamp_ms, seq LIMIT :limit
) RETURNING length(body)"""
_PEEK = """
SELECT id, body, content_type, timestamp_ms, attempts FROM message
WHERE queue = ? ORDER BY timestamp_ms, seq LIMIT ?"""
_OLDEST = "SELECT min(timestamp_ms) FROM message WHERE queue = ?"
_NEXT_VISIBLE = "SELECT min(visible_at) FROM message WHERE queue = ? AND leased_until IS NULL"
_PURGE = "DELETE FROM message WHERE queue = ? RETURNING length(body)"
_EXPIRE = """
DELETE FROM message WHERE queue = ? AND leased_until IS NULL AND timestamp_ms < ?
RETURNING length(body)"""
_TOTALS = "SELECT queue, count(*), sum(length(body)) FROM message GROUP BY queue"


@asynccontextmanager
async def open_queues(url: str, clock: Clock) -> AsyncIterator[QueueDriver]:
    """The store in the file that the URL names, made with its folders if need be."""
    path = path_of(url)
    if not path:
        raise ConfigError("backends", "queues", "sqlite: needs a path, as in sqlite:queues.db")
    file = Path(path).absolute()  # absolute: SQLite itself reads some names as no file at all
    try:
        durable.make_folder(file.parent)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}: {error.filename}") from error
    with open_store(str(file)) as driver:
        yield driver


@contextmanager
def open_store(path: str) -> Iterator[SqliteQueue]:
    """A store on the file of that name, or in memory for SQLite's own name ``:memory:``."""
    with _failures_of(path):
        connection = durable.connect(path, timeout=0, isolation_level="IMMEDIATE")
    with closing(connection):
        yield SqliteQueue(connection, path)


class SqliteQueue:
    """The messages of all queues in one table; see QueueDriver for the contract."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._files = [] if path == ":memory:" else [Path(path), Path(f"{path}-wal")]
        self._identities: list[durable.Identity | None] = []
        self._failure = ""
        self._messages: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        with _failures_of(path):
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(durable.sqlite_pragma())
            self._prepare()
        with self._transaction() as db:
            db.execute("UPDATE message SET leased_until = NULL WHERE leased_until IS NOT NULL")
            for queue, messages, size in db.execute(_TOTALS):
                self._messages[queue], self._bytes[queue] = messages, size

    def _prepare(self) -> None:
        """Create the schema in an empty file; refuse any other than our own."""
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version == 0 and tables == 0:
            self._connection.executescript(_SCHEMA)
        elif version != _SCHEMA_VERSION:
            raise RunError(
                f"{self._path}: not a queue store of this edgesim (schema {version}, "
                f"not {_SCHEMA_VERSION}); move the file away to start empty"
            )

    async def send(self, queue: str, messages: Sequence[NewMessage]) -> None:
        """See QueueDriver; an id that the store holds already is refused."""
        with self._transaction() as db:
            db.executemany(
                _SEND,
                [
                    (m.id, queue, m.body, m.content_type, m.timestamp_ms, m.visible_at)
                    for m in messages
                ],
            )
        self._count(queue, [len(message.body) for message in messages])

    async def lease(
        self, queue: str, limit: int, now: float, until: float, leased_max: int | None = None
    ) -> Sequence[Message]:
        """See QueueDriver."""
        with self._transaction() as db:
            db.execute(_END_OLD_LEASES, (queue, now))
            if leased_max is not None:
                (leased,) = db.execute(_LEASED, (queue,)).fetchone()
                limit = max(0, min(limit, leased_max - leased))
            rows = db.execute(_VISIBLE, (queue, now, limit)).fetchall()
            db.execute(_LEASE, (until, json.dumps([row[0] for row in rows])))
        return [Message(*row[1:]) for row in rows]

    async def ack(self, queue: str, lease_ids: Sequence[str]) -> int:
        """See QueueDriver."""
        with self._transaction() as db:
            sizes = _column(db.execute(_ACK, {"leases": json.dumps(lease_ids), "queue": queue}))
        self._discount(queue, sizes)
        return len(sizes)

    async def release(self, queue: str, lease_ids: Sequence[str], visible_at: float) -> int:
        """See QueueDriver."""
        values = {"leases": json.dumps(lease_ids), "queue": queue, "visible_at": visible_at}
        with self._transaction() as db:
            return db.execute(_RELEASE, values).rowcount

    async def move(self, queue: str, lease_ids: Sequence[str], to: str, now: float) -> int:
        """See QueueDriver."""
        leases = json.dumps(lease_ids)
        return self._take(_MOVE, {"leases": leases, "queue": queue, "to": to, "visible_at": now})

    async def redrive(self, queue: str, to: str, limit: int, now: float) -> int:
        """See QueueDriver."""
        return self._take(_REDRIVE, {"limit": limit, "queue": queue, "to": to, "visible_at": now})

    def _take(self, statement: str, values: dict[str, Any]) -> int:
        with self._transaction() as db:
            sizes = _column(db.execute(statement, values))
        self._discount(values["queue"], sizes)
        self._count(values["to"], sizes)
        return len(sizes)

    async def peek(self, queue: str, limit: int) -> Sequence[Message]:
        """See QueueDriver."""
        with self._transaction() as db:
            return [Message(*row) for row in db.execute(_PEEK, (queue, limit))]

    async def depth(self, queue: str) -> Depth:
        """See QueueDriver."""
        with self._transaction() as db:
            (oldest_ms,) = db.execute(_OLDEST, (queue,)).fetchone()
            (next_visible_at,) = db.execute(_NEXT_VISIBLE, (queue,)).fetchone()
        return Depth(self._messages[queue], self._bytes[queue], oldest_ms, next_visible_at)

    async def purge(self, queue: str) -> int:
        """See QueueDriver."""
        with self._transaction() as db:
            sizes = _column(db.execute(_PURGE, (queue,)))
        self._discount(queue, sizes)
        return len(sizes)

    async def drop(self, queue: str) -> None:
        """See QueueDriver; a queue is no more than its messages."""
        await self.purge(queue)

    async def expire(self, queue: str, before_ms: int) -> int:
        """See QueueDriver."""
        with self._transaction() as db:
            sizes = _column(db.execute(_EXPIRE, (queue, before_ms)))
        self._discount(queue, sizes)
        return len(sizes)

    async def names(self) -> Sequence[str]:
        """See QueueDriver."""
        return sorted(queue for queue, messages in self._messages.items() if messages)

    async def claim(self, name: str) -> bool:
        """See QueueDriver; the file is this process's alone."""
        return True

    async def changed_elsewhere(self) -> str:
        """See QueueDriver; the file is this process's alone."""
        await anyio.sleep_forever()
        raise AssertionError

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._failure:
            raise RunError(f"{self._path}: {self._failure} earlier", "restart edgesim")
        try:
            with _failures_of(self._path), self._connection as db:
                yield db
        except RunError as error:
            if durable.is_failed_sync(error.__cause__):
                self._failure = str(error.__cause__)
            raise
        self._check_in_place()

    def _check_in_place(self) -> None:
        """RunError if the file was deleted or replaced: what was committed is not durable."""
        if not self._identities:
            self._identities = [durable.identity(file) for file in self._files]
        for file, identity in zip(self._files, self._identities, strict=True):
            durable.check_in_place(file, identity)

    def _count(self, queue: str, sizes: Sequence[int]) -> None:
        self._messages[queue] += len(sizes)
        self._bytes[queue] += sum(sizes)

    def _discount(self, queue: str, sizes: Sequence[int]) -> None:
        self._messages[queue] -= len(sizes)
        self._bytes[queue] -= sum(sizes)


def _column(rows: sqlite3.Cursor) -> list[int]:
    return [value for (value,) in rows]


@contextmanager
def _failures_of(path: str) -> Iterator[None]:
    """SQLite's failures as ours: the file, the reason, and the cure where there is one."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_BUSY"):
            problem = "in use by another process; stop the edgesim that runs on this state"
        elif name in {"SQLITE_NOTADB", "SQLITE_CORRUPT"}:
            problem = f"damaged or not a queue store ({error}); move the file away to start empty"
        else:
            problem = str(error)
        raise RunError(f"{path}: {problem}") from error


_: type[QueueDriver] = SqliteQueue

"""``sqlite:PATH``: messages in one SQLite file.

Everything runs inline on one connection: each call is one short transaction, threads would break
the virtual clock, and a store that one process owns needs no pool.  The file is locked for as long
as it is open, so a second process is told so instead of taking leases of its own.

What concerns many messages (purge, redrive, expiry, the count at the start) is done in bounded
transactions, between which others run.  It concerns the messages that were there when it began;
others see some of them gone already.

Totals are counted in memory, because ``send`` reports them and counting rows would make each send
as slow as the backlog is long.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from math import inf
from pathlib import Path
from sqlite3 import Cursor
from typing import Any

import anyio
import anyio.lowlevel

from edgesim import durable
from edgesim.clock import Clock
from edgesim.errors import ConfigError, RunError
from edgesim.model import Message
from edgesim.queues import sqlite_statements as sql
from edgesim.queues.driver import Depth, NewMessage, QueueDriver
from edgesim.queues.sqlite_file import STEP_PAGES, StoreFile
from edgesim.queues.sqlite_steps import BEFORE_ALL, STEP_ROWS, Row, Sweep, step_of
from edgesim.urls import path_of

DETERMINISTIC = True

STEP_LEASES = 100
_PAGE_BYTES = 4096


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
    with open_store(str(file), clock) as driver:
        await driver.recover()
        yield driver


@contextmanager
def open_store(path: str, clock: Clock | None = None) -> Iterator[SqliteQueue]:
    """A store on the file of that name, or in memory for SQLite's own name ``:memory:``.

    ``recover`` comes first where the file may hold messages.
    """
    with closing(StoreFile(path, clock or Clock())) as file:
        yield SqliteQueue(file)


class SqliteQueue:
    """The messages of all queues in one table; see QueueDriver for the contract.

    Stored times are those of a Timeline: Unix seconds less its shift.
    """

    def __init__(self, file: StoreFile) -> None:
        self._file = file
        self._connection = file.connection
        self._messages: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._newest = 0  # the last seq given; never given again while the store is open
        self._sweeps: list[Sweep] = []

    async def recover(self) -> None:
        """Count what is stored, and end the leases of the process that had the file before."""
        newest_ms = 0
        while True:
            with self._file.transaction() as db:
                rows = db.execute(sql.STORED, (self._newest, STEP_ROWS)).fetchall()
                leased = [seq for _, seq, _, leased_until, _ in rows if leased_until is not None]
                if leased:
                    db.execute(sql.UNLEASE, (json.dumps(leased),))
            for stamp, self._newest, size, _, queue in rows:
                self._count(queue, [size])
                newest_ms = max(newest_ms, stamp)
            if len(rows) < STEP_ROWS:
                break
            await anyio.lowlevel.checkpoint()
        self._file.mark_time((newest_ms + 1) / 1000)  # a timestamp is cut to milliseconds
        await self._shrink()

    async def send(self, queue: str, messages: Sequence[NewMessage]) -> None:
        """See QueueDriver; an id that the store holds already is refused."""
        shift = self._file.shift()
        shift_ms = round(shift * 1000)
        numbered = enumerate(messages, self._newest + 1)
        rows = [
            (
                n,
                m.id,
                queue,
                m.body,
                m.content_type,
                m.timestamp_ms - shift_ms,
                m.visible_at - shift,
            )
            for n, m in numbered
        ]
        with self._file.transaction() as db:
            db.executemany(sql.SEND, rows)
        self._newest += len(rows)
        self._count(queue, [len(message.body) for message in messages])

    async def lease(
        self, queue: str, limit: int, now: float, until: float, leased_max: int | None = None
    ) -> Sequence[Message]:
        """See QueueDriver."""
        shift = self._file.shift()
        await self._end_old_leases(queue, now - shift)
        if leased_max is not None:
            with self._file.transaction() as db:
                (leased,) = db.execute(sql.LEASED, (queue,)).fetchone()
            limit = min(limit, leased_max - leased)
        rows = await self._lease(queue, limit, now - shift, until - shift)
        return [
            Message(id_, body, kind, stamp + round(shift * 1000), attempts, lease_id)
            for _, id_, _, body, kind, stamp, attempts, lease_id in rows
        ]

    async def _lease(self, queue: str, limit: int, now: float, until: float) -> list[Any]:
        rows: list[Any] = []
        more = limit > 0
        while more:
            if rows:  # not to be cancelled: nobody would hold what is leased by now
                await anyio.lowlevel.cancel_shielded_checkpoint()
            with self._file.transaction() as db:
                found = db.execute(sql.VISIBLE, (queue, now, limit - len(rows)))
                step, more = step_of(found)
                db.execute(sql.LEASE, (until, json.dumps([row[0] for row in step])))
            rows += step
            more = more and len(rows) < limit
        return rows

    async def _end_old_leases(self, queue: str, now: float) -> None:
        while True:
            with self._file.transaction() as db:
                ended = db.execute(sql.END_OLD_LEASES, (queue, now, STEP_ROWS)).rowcount
            if ended < STEP_ROWS:
                return
            await anyio.lowlevel.checkpoint()

    async def ack(self, queue: str, lease_ids: Sequence[str]) -> int:
        """See QueueDriver."""
        acked = size = 0
        for at, leases in enumerate(_steps(lease_ids)):
            await _pause(at)
            with self._file.transaction() as db:
                sizes = _column(db.execute(sql.ACK, {"leases": leases, "queue": queue}))
            self._discount(queue, sizes)
            acked += len(sizes)
            size += sum(sizes)
        await self._shrink(2 * size // _PAGE_BYTES)
        return acked

    async def release(
        self, queue: str, lease_ids: Sequence[str], visible_at: float, counts: bool = True
    ) -> int:
        """See QueueDriver."""
        released, visible_at = 0, visible_at - self._file.shift()
        for at, leases in enumerate(_steps(lease_ids)):
            await _pause(at)
            values = {
                "leases": leases,
                "queue": queue,
                "visible_at": visible_at,
                "uncounted": not counts,
            }
            with self._file.transaction() as db:
                released += db.execute(sql.RELEASE, values).rowcount
        return released

    async def move(self, queue: str, lease_ids: Sequence[str], to: str, now: float) -> int:
        """See QueueDriver."""
        moved, visible_at = 0, now - self._file.shift()
        for at, leases in enumerate(_steps(lease_ids)):
            await _pause(at)
            with self._file.transaction() as db:
                held = db.execute(sql.FIND_HELD, {"leases": leases, "queue": queue}).fetchall()
            moved += self._give(queue, to, visible_at, held)
        return moved

    async def redrive(self, queue: str, to: str, limit: int, now: float) -> int:
        """See QueueDriver."""
        act = partial(self._give, queue, to, now - self._file.shift())
        return await self._sweep(queue, act, limit=limit)

    def _give(self, queue: str, to: str, visible_at: float, rows: Sequence[Row]) -> int:
        seqs = [row[1] for row in rows]
        with self._file.transaction() as db:
            db.execute(sql.MOVE, (to, visible_at, json.dumps(seqs)))
        for sweep in self._sweeps:
            sweep.note_moved(to, seqs)
        sizes = [row[2] for row in rows]
        self._discount(queue, sizes)
        self._count(to, sizes)
        return len(rows)

    async def peek(self, queue: str, limit: int) -> Sequence[Message]:
        """See QueueDriver."""
        shift_ms = round(self._file.shift() * 1000)
        found: list[Message] = []
        after, more = BEFORE_ALL, limit > 0
        while more:
            await _pause(len(found))
            with self._file.transaction() as db:
                step, more = step_of(db.execute(sql.PEEK, (queue, *after, limit - len(found))))
            found += [
                Message(id_, body, kind, stamp + shift_ms, attempts)
                for stamp, _, _, id_, body, kind, attempts in step
            ]
            if step:
                after = step[-1][:2]
        return found

    async def depth(self, queue: str) -> Depth:
        """See QueueDriver."""
        shift = self._file.shift()
        with self._file.transaction() as db:
            (oldest_ms,) = db.execute(sql.OLDEST, (queue,)).fetchone()
            (next_visible_at,) = db.execute(sql.NEXT_VISIBLE, (queue,)).fetchone()
        return Depth(
            self._messages[queue],
            self._bytes[queue],
            None if oldest_ms is None else oldest_ms + round(shift * 1000),
            None if next_visible_at is None else next_visible_at + shift,
        )

    async def purge(self, queue: str) -> int:
        """See QueueDriver."""
        purged = await self._sweep(queue, partial(self._delete, queue))
        await self._shrink()
        return purged

    async def drop(self, queue: str) -> None:
        """See QueueDriver; a queue is no more than its messages."""
        await self.purge(queue)

    async def expire(self, queue: str, before_ms: int) -> int:
        """See QueueDriver."""
        before_ms -= round(self._file.shift() * 1000)

        def delete(rows: Sequence[Row]) -> int:
            return self._delete(queue, [row for row in rows if row[3] is None])

        expired = await self._sweep(queue, delete, before_ms=before_ms)
        if expired:
            await self._shrink()
        return expired

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

    # --- many messages at a time ---

    async def _sweep(
        self,
        queue: str,
        act: Callable[[Sequence[Row]], int],
        *,
        limit: float = inf,
        before_ms: float = inf,
    ) -> int:
        """Do ``act``, step by step, to the messages that are there now; the sum of its results.

        They come oldest first, at most ``limit`` of them, with timestamps before ``before_ms``.
        """
        sweep = Sweep(queue, self._newest, before_ms, limit)
        self._sweeps.append(sweep)
        done = 0
        try:
            while True:
                with self._file.transaction() as db:
                    found = db.execute(sql.OLDEST_FIRST, (queue, *sweep.after, STEP_ROWS))
                    step, more = step_of(found)
                if wanted := sweep.wanted(step):
                    with self._file.unflushed():
                        done += act(wanted)
                if not more or sweep.is_over:
                    break
                await anyio.lowlevel.checkpoint()
        finally:
            self._sweeps.remove(sweep)
        if done:
            self._file.checkpoint()
        return done

    def _delete(self, queue: str, rows: Sequence[Row]) -> int:
        with self._file.transaction() as db:
            db.execute(sql.DELETE, (json.dumps([row[1] for row in rows]),))
        self._discount(queue, [row[2] for row in rows])
        return len(rows)

    async def _shrink(self, pages: float = inf) -> None:
        """Give unused space back to the file system, some ``pages`` of it."""
        given = 0
        while given <= pages and self._file.shrink():
            given += STEP_PAGES
            await anyio.lowlevel.checkpoint()
        if given:
            self._file.checkpoint()

    def _count(self, queue: str, sizes: Sequence[int]) -> None:
        self._messages[queue] += len(sizes)
        self._bytes[queue] += sum(sizes)

    def _discount(self, queue: str, sizes: Sequence[int]) -> None:
        self._messages[queue] -= len(sizes)
        self._bytes[queue] -= sum(sizes)


def _column(rows: Cursor) -> list[int]:
    return [value for (value,) in rows]


def _steps(lease_ids: Sequence[str]) -> Iterator[str]:
    """The leases as JSON, some at a time."""
    for start in range(0, len(lease_ids), STEP_LEASES):
        yield json.dumps(lease_ids[start : start + STEP_LEASES])


async def _pause(step: int) -> None:
    """Let others run before every step but the first."""
    if step:
        await anyio.lowlevel.checkpoint()


_: type[QueueDriver] = SqliteQueue

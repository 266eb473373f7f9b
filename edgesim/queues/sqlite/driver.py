"""``sqlite:PATH``: messages in one SQLite file.

One thread uses one connection; calls are short steps, and steps that are waiting for the thread
share a transaction.  The file is locked while it is open, so a second process fails with an error
instead of leasing messages itself.

Operations on many messages (redrive, expiry, the count at the start) run in bounded transactions,
between which other steps run.  They cover the messages present at their start; other callers may
see them partly done.  A purge is one small transaction: it changes the queue's name in the store
(see Names), and the messages are removed in the background.

Totals are counted in memory, because ``send`` reports them and counting rows would make each send
slower as the backlog grows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from math import inf
from pathlib import Path
from sqlite3 import Connection, Cursor
from typing import Any

import anyio
import anyio.lowlevel
import structlog

from edgesim import durable
from edgesim.clock import Clock
from edgesim.errors import ConfigError, RunError
from edgesim.model import Message
from edgesim.queues.driver import Depth, NewMessage, QueueDriver
from edgesim.queues.sqlite import statements as sql
from edgesim.queues.sqlite.file import STEP_PAGES, StoreFile
from edgesim.queues.sqlite.names import Names
from edgesim.queues.sqlite.steps import BEFORE_ALL, STEP_ROWS, Row, Sweep, step_of
from edgesim.urls import path_of

DETERMINISTIC = True
EMBEDDED = True
SHARED = False
DURABLE = True
FILES = ("",)

STEP_LEASES = 100
_PAGE_BYTES = 4096

log = structlog.get_logger()


@asynccontextmanager
async def open_queues(url: str, clock: Clock) -> AsyncIterator[QueueDriver]:
    """Open the store in the URL's file; the file and its folders are created if missing."""
    path = path_of(url)
    if not path:
        raise ConfigError("backends", "queues", "sqlite: needs a path, as in sqlite:queues.db")
    file = Path(path).absolute()  # absolute: SQLite treats some names as no file
    try:
        durable.make_folder(file.parent)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}: {error.filename}") from error
    with open_store(str(file), clock) as driver:
        await driver.recover()
        async with removing_purged(driver):
            yield driver


@asynccontextmanager
async def removing_purged(driver: SqliteQueue) -> AsyncIterator[None]:
    """Remove purged messages in the background of the block."""
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driver.remove_purged)
        try:
            yield
        except Exception as error:  # noqa: BLE001 (raised below, itself and not in a group)
            failure = error
        finally:
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


@contextmanager
def open_store(path: str, clock: Clock | None = None) -> Iterator[SqliteQueue]:
    """A store on the file of that name, or in memory for SQLite's own name ``:memory:``.

    Call ``recover`` first if the file may hold messages.
    """
    with closing(StoreFile(path, clock or Clock())) as file:
        yield SqliteQueue(file)


class SqliteQueue:
    """The messages of all queues in one table; see QueueDriver for the contract.

    Stored times are those of a Timeline: Unix seconds minus its shift.  Counts and names change
    only inside steps, in the order of their commits.
    """

    def __init__(self, file: StoreFile) -> None:
        self._file = file
        self._connection = file.connection
        self._names = Names(file.connection)
        self._messages: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._newest = 0  # the last seq assigned; not reused while the store is open
        self._sweeps: list[Sweep] = []
        self._purged = anyio.Event()

    async def recover(self) -> None:
        """Count the stored messages, and end the leases of the previous process."""
        newest_ms = 0
        while True:
            rows = await self._file.run(self._stored)
            for stamp, self._newest, size, _, stored in rows:
                newest_ms = max(newest_ms, stamp)
                if (queue := self._names.owner(stored)) is not None:
                    self._count(queue, [size])
            if len(rows) < STEP_ROWS:
                break
            await anyio.lowlevel.checkpoint()
        # Timestamps are truncated to milliseconds.
        await self._file.run_alone(lambda: self._file.mark_time((newest_ms + 1) / 1000))
        await self._shrink()

    def _stored(self, db: Connection) -> list[Any]:
        rows = db.execute(sql.STORED, (self._newest, STEP_ROWS)).fetchall()
        leased = [seq for _, seq, _, leased_until, _ in rows if leased_until is not None]
        if leased:
            db.execute(sql.UNLEASE, (json.dumps(leased),))
        return rows

    async def send(self, queue: str, messages: Sequence[NewMessage]) -> None:
        """See QueueDriver; an id that is already in the store is refused."""

        def step(db: Connection) -> None:
            shift = self._file.shift()
            shift_ms = round(shift * 1000)
            first, stored = self._newest + 1, self._names.stored(queue)
            self._newest += len(messages)
            rows = [
                (
                    n,
                    m.id,
                    stored,
                    m.body,
                    m.content_type,
                    m.timestamp_ms - shift_ms,
                    m.visible_at - shift,
                    m.trace,
                )
                for n, m in enumerate(messages, first)
            ]
            self._names.free_ids([message.id for message in messages])
            db.executemany(sql.SEND, rows)

        sizes = [len(message.body) for message in messages]
        await self._file.run(step, lambda _: self._count(queue, sizes))

    async def lease(
        self, queue: str, limit: int, now: float, until: float, leased_max: int | None = None
    ) -> Sequence[Message]:
        """See QueueDriver."""
        leased: list[Message] = []
        stored = ""

        def step(db: Connection) -> tuple[list[Message], bool]:
            nonlocal stored
            shift, name = self._file.shift(), self._names.stored(queue)
            if leased and name != stored:  # purged meanwhile
                leased.clear()
                return [], False
            stored = name
            ended = db.execute(sql.END_OLD_LEASES, (name, now - shift, STEP_ROWS)).rowcount
            if ended == STEP_ROWS:
                return [], True
            room = limit - len(leased)
            if leased_max is not None:
                (others,) = db.execute(sql.LEASED, (name,)).fetchone()
                room = min(room, leased_max - others)
            rows, more = step_of(db.execute(sql.VISIBLE, (name, now - shift, max(room, 0))))
            if rows:
                db.execute(sql.LEASE, (until - shift, json.dumps([row[0] for row in rows])))
            messages = [
                Message(id_, body, kind, stamp + round(shift * 1000), attempts, lease_id, trace)
                for _, id_, _, body, kind, stamp, attempts, lease_id, trace in rows
            ]
            return messages, more

        more = limit > 0
        while more:
            found, more = await self._file.run(step)
            leased += found
            more = more and len(leased) < limit
            if more:  # shielded: a cancelled call would leave leases without a holder
                await anyio.lowlevel.cancel_shielded_checkpoint()
        return leased

    async def ack(self, queue: str, lease_ids: Sequence[str]) -> int:
        """See QueueDriver."""
        acked = size = 0
        for at, leases in enumerate(_steps(lease_ids)):
            await _pause(at)

            def step(db: Connection, leases: str = leases) -> list[int]:
                return _column(db.execute(sql.ACK, self._held(queue, leases)))

            sizes = await self._file.run(step, partial(self._discount, queue))
            acked += len(sizes)
            size += sum(sizes)
        await self._shrink(2 * size // _PAGE_BYTES)
        return acked

    async def release(
        self, queue: str, lease_ids: Sequence[str], visible_at: float, counts: bool = True
    ) -> int:
        """See QueueDriver."""
        released = 0
        for at, leases in enumerate(_steps(lease_ids)):
            await _pause(at)

            def step(db: Connection, leases: str = leases) -> int:
                times = {"visible_at": visible_at - self._file.shift(), "uncounted": not counts}
                return db.execute(sql.RELEASE, self._held(queue, leases) | times).rowcount

            released += await self._file.run(step)
        return released

    async def move(self, queue: str, lease_ids: Sequence[str], to: str, now: float) -> int:
        """See QueueDriver."""
        moved = 0
        for at, leases in enumerate(_steps(lease_ids)):
            await _pause(at)

            def step(db: Connection, leases: str = leases) -> list[Row]:
                held = db.execute(sql.FIND_HELD, self._held(queue, leases)).fetchall()
                return self._give(db, to, now, held)

            moved += len(await self._file.run(step, partial(self._note_given, queue, to)))
        return moved

    async def redrive(self, queue: str, to: str, limit: int, now: float) -> int:
        """See QueueDriver."""

        def act(db: Connection, rows: list[Row]) -> list[Row]:
            return self._give(db, to, now, rows)

        return await self._sweep(queue, act, partial(self._note_given, queue, to), limit=limit)

    def _held(self, queue: str, leases: str) -> dict[str, Any]:
        return {"leases": leases, "queue": self._names.stored(queue)}

    def _give(self, db: Connection, to: str, now: float, rows: list[Row]) -> list[Row]:
        visible_at = now - self._file.shift()
        seqs = json.dumps([row[1] for row in rows])
        db.execute(sql.MOVE, (self._names.stored(to), visible_at, seqs))
        return rows

    def _note_given(self, queue: str, to: str, rows: list[Row]) -> None:
        for sweep in tuple(self._sweeps):
            sweep.note_moved(to, [row[1] for row in rows])
        sizes = [row[2] for row in rows]
        self._discount(queue, sizes)
        self._count(to, sizes)

    async def peek(self, queue: str, limit: int) -> Sequence[Message]:
        """See QueueDriver."""
        found: list[Message] = []
        after = BEFORE_ALL

        def step(db: Connection) -> tuple[list[Message], tuple[int, int], bool]:
            shift_ms = round(self._file.shift() * 1000)
            place = (self._names.stored(queue), *after)
            rows, more = step_of(db.execute(sql.PEEK, (*place, limit - len(found))))
            messages = [
                Message(id_, body, kind, stamp + shift_ms, attempts)
                for stamp, _, _, id_, body, kind, attempts in rows
            ]
            return messages, rows[-1][:2] if rows else after, more

        more = limit > 0
        while more:
            await _pause(len(found))
            messages, after, more = await self._file.run(step)
            found += messages
        return found

    async def depth(self, queue: str) -> Depth:
        """See QueueDriver."""

        def step(db: Connection) -> Depth:
            shift, name = self._file.shift(), self._names.stored(queue)
            (oldest_ms,) = db.execute(sql.OLDEST, (name,)).fetchone()
            (next_visible_at,) = db.execute(sql.NEXT_VISIBLE, (name,)).fetchone()
            return Depth(
                self._messages[queue],
                self._bytes[queue],
                None if oldest_ms is None else oldest_ms + round(shift * 1000),
                None if next_visible_at is None else next_visible_at + shift,
            )

        return await self._file.run(step)

    async def purge(self, queue: str) -> int:
        """See QueueDriver; takes effect at once, and the space is freed in the background."""

        def step() -> int:
            with self._file.transaction():
                begin = self._names.replace(queue)
            begin()
            self._bytes[queue] = 0
            return self._messages.pop(queue, 0)

        purged = await self._file.run_alone(step)
        self._purged.set()
        return purged

    async def drop(self, queue: str) -> None:
        """See QueueDriver; a queue exists only through its messages."""
        await self.purge(queue)

    async def expire(self, queue: str, before_ms: int) -> int:
        """See QueueDriver."""

        def act(db: Connection, rows: list[Row]) -> list[Row]:
            unleased = [row for row in rows if row[3] is None]
            db.execute(sql.DELETE, (json.dumps([row[1] for row in unleased]),))
            return unleased

        def then(rows: list[Row]) -> None:
            self._discount(queue, [row[2] for row in rows])

        expired = await self._sweep(queue, act, then, before_ms=before_ms)
        if expired:
            await self._shrink()
        return expired

    async def names(self) -> Sequence[str]:
        """See QueueDriver."""

        def step(db: Connection) -> list[str]:
            return sorted(queue for queue, messages in self._messages.items() if messages)

        return await self._file.run(step)

    async def claim(self, name: str) -> bool:
        """See QueueDriver; only this process uses the file."""
        return True

    async def changed_elsewhere(self) -> str:
        """See QueueDriver; only this process uses the file."""
        await anyio.sleep_forever()
        raise AssertionError

    # --- many messages at a time ---

    async def _sweep(
        self,
        queue: str,
        act: Callable[[Connection, list[Row]], list[Row]],
        then: Callable[[list[Row]], None],
        *,
        limit: float = inf,
        before_ms: float = inf,
    ) -> int:
        """Apply ``act``, step by step, to the messages present now; returns how many it changed.

        They are processed oldest first, at most ``limit``, with timestamps before ``before_ms``.  A
        purge ends the sweep.
        """
        sweep: Sweep | None = None
        stored = ""

        def step() -> tuple[int, bool]:
            nonlocal sweep, stored
            name = self._names.stored(queue)
            if sweep is None:
                stored = name
                shift_ms = round(self._file.shift() * 1000)
                sweep = Sweep(queue, self._newest, before_ms - shift_ms, limit)
                self._sweeps.append(sweep)
            if name != stored:
                return 0, False
            with self._file.transaction() as db:
                found = db.execute(sql.OLDEST_FIRST, (name, *sweep.after, STEP_ROWS))
                rows, more = step_of(found)
            wanted = sweep.wanted(rows)
            if wanted:
                with self._file.unflushed(), self._file.transaction() as db:
                    wanted = act(db, wanted)
                then(wanted)
            return len(wanted), more and not sweep.is_over

        done, more = 0, True
        try:
            while more:
                count, more = await self._file.run_alone(step)
                done += count
                if more:
                    await anyio.lowlevel.checkpoint()
        finally:
            if sweep is not None:
                self._sweeps.remove(sweep)
        if done:
            await self._file.run_alone(self._file.checkpoint)
        return done

    async def remove_purged(self) -> None:
        """Remove purged messages until cancelled, starting with those of an earlier process.

        A failure is logged, and the rest waits for the next purge or start.
        """
        while True:
            self._purged = anyio.Event()
            try:
                await self._remove_all_purged()
            except RunError as error:
                log.error("purged messages not removed", store=self._file.path, error=str(error))
            await self._purged.wait()

    async def _remove_all_purged(self) -> None:
        removed = 0
        while count := await self._file.run_alone(self._remove_some):
            removed += count
            await anyio.lowlevel.checkpoint()
        if removed:
            await self._file.run_alone(self._file.checkpoint)
            await self._shrink()

    def _remove_some(self) -> int:
        """Remove one step of purged messages; returns their number."""
        while (name := self._names.purged) is not None:
            with self._file.unflushed(), self._file.transaction() as db:
                rows, _ = step_of(db.execute(sql.OLDEST_FIRST, (name, *BEFORE_ALL, STEP_ROWS)))
                db.execute(sql.DELETE, (json.dumps([row[1] for row in rows]),))
            if rows:
                return len(rows)
            self._names.forget(name)
        return 0

    async def _shrink(self, pages: float = inf) -> None:
        """Return unused space to the file system: about ``pages``, or as much as there is."""
        given = 0
        while given <= pages and await self._file.run_alone(self._file.shrink):
            given += STEP_PAGES
            await anyio.lowlevel.checkpoint()
        if given:
            await self._file.run_alone(self._file.checkpoint)

    def _count(self, queue: str, sizes: Sequence[int]) -> None:
        self._messages[queue] += len(sizes)
        self._bytes[queue] += sum(sizes)

    def _discount(self, queue: str, sizes: Sequence[int]) -> None:
        self._messages[queue] -= len(sizes)
        self._bytes[queue] -= sum(sizes)


def _column(rows: Cursor) -> list[int]:
    return [value for (value,) in rows]


def _steps(lease_ids: Sequence[str]) -> Iterator[str]:
    """The leases as JSON, in batches."""
    for start in range(0, len(lease_ids), STEP_LEASES):
        yield json.dumps(lease_ids[start : start + STEP_LEASES])


async def _pause(step: int) -> None:
    """Yield to the event loop before every step but the first."""
    if step:
        await anyio.lowlevel.checkpoint()


_: type[QueueDriver] = SqliteQueue

"""Notifications between an object's commit and their delivery to queues, in SQLite.

An entry is ready, or it depends on an intent: a change to a store that cannot commit together with
this database, recorded before the change and resolved after it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from edgesim.database import Database
from edgesim.r2.driver import OutboxEntry

SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
  position INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  queue TEXT NOT NULL,
  body BLOB NOT NULL,
  intent BLOB
);
CREATE INDEX IF NOT EXISTS outbox_intents ON outbox (intent) WHERE intent IS NOT NULL;
"""


class Intent(msgspec.Struct, frozen=True):
    """An intended change: ``version`` of an object is to be created, or deleted."""

    bucket: str
    key: str
    version: str
    deletes: bool = False


class Decision:
    """Outcome of the changes after a successful block; by default they happened."""

    happened = True


class Outbox:
    """The table of notifications; oldest first."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._under_way: set[Intent] = set()

    def add(self, entries: Sequence[OutboxEntry]) -> None:
        """Append ready entries in the caller's open transaction."""
        self._insert(entries, None)

    def oldest(self, limit: int) -> list[OutboxEntry]:
        """The oldest entries that are ready."""
        rows = self._database.run(
            "SELECT id, queue, body FROM outbox WHERE intent IS NULL ORDER BY position LIMIT ?",
            (limit,),
        )
        return [OutboxEntry(*row) for row in rows]

    async def settle(self, ids: Sequence[str]) -> None:
        """Delete delivered entries."""
        rows = [(entry,) for entry in ids]
        await self._database.write(
            lambda: self._database.run_many("DELETE FROM outbox WHERE id = ?", rows)
        )

    @asynccontextmanager
    async def announced(
        self, changes: Sequence[tuple[Intent, Sequence[OutboxEntry]]]
    ) -> AsyncIterator[Decision]:
        """Record the notifications of the changes; they are ready once the block succeeds.

        The block may set another decision.  If it raises, the changes stay in doubt.
        """
        decision = Decision()
        intents = [intent for intent, entries in changes if entries]
        if not intents:
            yield decision
            return

        def announce() -> None:
            for intent, entries in changes:
                self._insert(entries, intent)

        self._under_way.update(intents)
        try:
            await self._database.write(announce)
            yield decision
            await self.decide(intents, happened=decision.happened)
        finally:
            self._under_way.difference_update(intents)

    async def replace(self, intent: Intent, entries: Sequence[OutboxEntry]) -> None:
        """Replace the notifications of a recorded intent."""

        def replace() -> None:
            self._database.run(
                "DELETE FROM outbox WHERE intent = ?", (msgspec.json.encode(intent),)
            )
            self._insert(entries, intent)

        await self._database.write(replace)

    def undecided(self) -> list[Intent]:
        """Intents in doubt: the change is no longer in progress and its outcome is unknown."""
        rows = self._database.run("SELECT DISTINCT intent FROM outbox WHERE intent IS NOT NULL")
        intents = [msgspec.json.decode(row[0], type=Intent) for row in rows]
        return [intent for intent in intents if intent not in self._under_way]

    async def decide(self, intents: Sequence[Intent], *, happened: bool) -> None:
        """Resolve intents: their entries become ready if it happened, else they are deleted."""
        sql = (
            "UPDATE outbox SET intent = NULL WHERE intent = ?"
            if happened
            else "DELETE FROM outbox WHERE intent = ?"
        )
        rows = [(msgspec.json.encode(intent),) for intent in intents]
        await self._database.write(lambda: self._database.run_many(sql, rows))

    def _insert(self, entries: Sequence[OutboxEntry], intent: Intent | None) -> None:
        hangs_on = None if intent is None else msgspec.json.encode(intent)
        self._database.run_many(
            "INSERT INTO outbox (id, queue, body, intent) VALUES (?, ?, ?, ?)",
            [(entry.id, entry.queue, entry.body, hangs_on) for entry in entries],
        )

"""Under which name the messages of a queue are stored in SQLite.

A purge gives a queue another name: one small transaction makes any number of messages invisible to
every statement, and they are removed at leisure.  A queue that was never purged has its own name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from sqlite3 import Connection

from edgesim.queues import sqlite_statements as sql

_MARK = "\n"  # in no name of a queue


class Names:
    """The stored names of all queues, and those whose messages are purged and not removed yet."""

    def __init__(self, db: Connection) -> None:
        self._db = db
        self._generations: dict[str, int] = dict(db.execute(sql.READ_GENERATIONS))
        self._purged: dict[str, None] = {}

    @property
    def purged(self) -> str | None:
        """A stored name whose messages are to be removed."""
        return next(iter(self._purged), None)

    def stored(self, queue: str) -> str:
        """The name of a queue's messages now."""
        number = self._generations.get(queue, 0)
        return f"{queue}{_MARK}{number}" if number else queue

    def owner(self, stored: str) -> str | None:
        """The queue of a stored name; None if it is purged, and noted as such."""
        queue = stored.partition(_MARK)[0]
        if stored == self.stored(queue):
            return queue
        self._purged[stored] = None
        return None

    def replace(self, queue: str) -> Callable[[], None]:
        """Write another name down, in the caller's transaction; call the result after it."""
        number = self._generations.get(queue, 0) + 1
        before = self.stored(queue)
        self._db.execute(sql.WRITE_GENERATION, (queue, number))
        self._db.execute(sql.NOTE_PURGED)

        def begin() -> None:
            self._generations[queue] = number
            self._purged[before] = None

        return begin

    def forget(self, stored: str) -> None:
        """The messages of a purged name are removed."""
        self._purged.pop(stored, None)

    def free_ids(self, ids: Sequence[str]) -> None:
        """Remove purged messages with these ids, in the caller's transaction."""
        if self._purged:
            values = {"ids": json.dumps(ids), "queues": json.dumps(list(self._purged))}
            self._db.execute(sql.REMOVE_IDS, values)

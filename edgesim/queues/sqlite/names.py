"""Names under which the messages of queues are stored in SQLite.

A purge assigns a queue another name: one small transaction hides any number of messages from every
statement, and they are removed later.  A queue that was never purged is stored under its own name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from sqlite3 import Connection

from edgesim.queues.sqlite import statements as sql

_MARK = "\n"  # occurs in no queue name


class Names:
    """The stored names of all queues, and the purged names whose messages are still stored."""

    def __init__(self, db: Connection) -> None:
        self._db = db
        self._generations: dict[str, int] = dict(db.execute(sql.READ_GENERATIONS))
        self._purged: dict[str, None] = {}

    @property
    def purged(self) -> str | None:
        """A stored name whose messages are to be removed; None if there is none."""
        return next(iter(self._purged), None)

    def stored(self, queue: str) -> str:
        """The current stored name of a queue."""
        number = self._generations.get(queue, 0)
        return f"{queue}{_MARK}{number}" if number else queue

    def owner(self, stored: str) -> str | None:
        """The queue of a stored name; None, and recorded for removal, if it is purged."""
        queue = stored.partition(_MARK)[0]
        if stored == self.stored(queue):
            return queue
        self._purged[stored] = None
        return None

    def replace(self, queue: str) -> Callable[[], None]:
        """Write a new name in the caller's transaction; call the result after the commit."""
        number = self._generations.get(queue, 0) + 1
        before = self.stored(queue)
        self._db.execute(sql.WRITE_GENERATION, (queue, number))
        self._db.execute(sql.NOTE_PURGED)

        def begin() -> None:
            self._generations[queue] = number
            self._purged[before] = None

        return begin

    def forget(self, stored: str) -> None:
        """Drop a purged name whose messages are removed."""
        self._purged.pop(stored, None)

    def free_ids(self, ids: Sequence[str]) -> None:
        """Remove purged messages with these ids, in the caller's transaction."""
        if self._purged:
            values = {"ids": json.dumps(ids), "queues": json.dumps(list(self._purged))}
            self._db.execute(sql.REMOVE_IDS, values)

"""Operations on many messages of a SQLite store, split into bounded transactions."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Cursor
from typing import Any

STEP_ROWS, STEP_BYTES = 500, 1_000_000
"""Maximum messages of one transaction, and about their bytes (one message at least)."""
BEFORE_ALL = (-(2**63), 0)
"""A position before every (timestamp_ms, seq)."""

Row = tuple[int, int, int, float | None]
"""A stored message's timestamp_ms, seq, body size, and lease expiry (None: not leased)."""


def step_of(rows: Cursor) -> tuple[list[Any], bool]:
    """The rows of one step; True if there may be more.  The third column is the size in bytes."""
    step, size = [], 0
    for row in rows:
        step.append(row)
        size += row[2]
        if len(step) == STEP_ROWS or size >= STEP_BYTES:
            return step, True
    return step, False


class Sweep:
    """A pass over the messages that were in a queue when it began, oldest first."""

    def __init__(self, queue: str, newest: int, before_ms: float, limit: float) -> None:
        self.after = BEFORE_ALL
        self._queue = queue
        self._newest = newest
        self._before_ms = before_ms
        self._left = limit
        self._arrived: set[int] = set()

    @property
    def is_over(self) -> bool:
        """True if the pass needs no further rows."""
        return self._left <= 0 or self.after[0] >= self._before_ms

    def note_moved(self, to: str, seqs: Sequence[int]) -> None:
        """Record messages moved to this queue during the pass; they kept their older numbers."""
        if to == self._queue:
            self._arrived.update(seqs)

    def wanted(self, step: Sequence[Row]) -> list[Row]:
        """Select the rows that the pass covers from the next step."""
        if step:
            self.after = step[-1][:2]
        wanted = [row for row in step if self._wants(*row[:2])]
        wanted = wanted[: int(min(self._left, len(wanted)))]
        self._left -= len(wanted)
        return wanted

    def _wants(self, timestamp_ms: int, seq: int) -> bool:
        return timestamp_ms < self._before_ms and seq <= self._newest and seq not in self._arrived

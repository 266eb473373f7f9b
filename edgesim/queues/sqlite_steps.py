"""Work on many messages of a SQLite store, cut into transactions of bounded length."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Cursor
from typing import Any

STEP_ROWS, STEP_BYTES = 500, 1_000_000
"""The messages of one transaction, and about their bytes (one message at least)."""
BEFORE_ALL = (-(2**63), 0)
"""A position before every (timestamp_ms, seq)."""

Row = tuple[int, int, int, float | None]
"""Of a stored message: timestamp_ms, seq, size of its body, until when it is leased."""


def step_of(rows: Cursor) -> tuple[list[Any], bool]:
    """As many rows as one step may have; whether there may be more.  Sizes are the third column."""
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
        """Nothing more is wanted of what follows."""
        return self._left <= 0 or self.after[0] >= self._before_ms

    def note_moved(self, to: str, seqs: Sequence[int]) -> None:
        """Messages have come to a queue under the numbers that they had elsewhere."""
        if to == self._queue:
            self._arrived.update(seqs)

    def wanted(self, step: Sequence[Row]) -> list[Row]:
        """Those of the next rows that the pass is for."""
        if step:
            self.after = step[-1][:2]
        wanted = [row for row in step if self._wants(*row[:2])]
        wanted = wanted[: int(min(self._left, len(wanted)))]
        self._left -= len(wanted)
        return wanted

    def _wants(self, timestamp_ms: int, seq: int) -> bool:
        return timestamp_ms < self._before_ms and seq <= self._newest and seq not in self._arrived

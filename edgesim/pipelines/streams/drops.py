"""Records that are dropped: counts by reason, and samples to be looked at."""

from __future__ import annotations

from collections import Counter, deque

import msgspec

SAMPLES_MAX = 20
"""Dropped records that are kept to be looked at; older ones are forgotten."""
SAMPLE_CHARS_MAX = 2_000


class DroppedSample(msgspec.Struct, frozen=True, omit_defaults=True):
    """A dropped record: the reason, and its text, maybe cut.

    ``column`` is the one that does not fit the schema; ``statement`` and ``problem`` are the SQL
    statement that fails on the record, and its error.
    """

    at: float
    reason: str
    column: str
    record: str
    statement: str = ""
    problem: str = ""


class Drops:
    """The counts and the latest samples."""

    def __init__(self, samples_max: int = SAMPLES_MAX) -> None:
        self.counts: Counter[str] = Counter()
        self.samples: deque[DroppedSample] = deque(maxlen=samples_max)

    def add(self, sample: DroppedSample) -> None:
        """Count one record."""
        self.counts[sample.reason] += 1
        self.samples.append(sample)

    def extend(self, more: Drops) -> None:
        """Count the records of another one."""
        self.counts += more.counts
        self.samples.extend(more.samples)


def shown(record: bytes) -> str:
    """A record's text for a sample."""
    return record[:SAMPLE_CHARS_MAX].decode("utf-8", "replace").rstrip("\n")

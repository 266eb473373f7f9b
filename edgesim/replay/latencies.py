"""Latencies in virtual time, kept as counts of rounded values so that memory stays bounded."""

from __future__ import annotations

import math
from collections import Counter

import msgspec


class Percentiles(msgspec.Struct, frozen=True):
    """Percentiles in milliseconds."""

    p50: float
    p95: float
    p99: float
    max: float


class Latencies:
    """Distribution of latencies, rounded to three significant digits."""

    def __init__(self) -> None:
        self._counts: Counter[float] = Counter()

    def add(self, seconds: float, count: int = 1) -> None:
        """Add ``count`` latencies of ``seconds``."""
        self._counts[_rounded(max(0.0, seconds) * 1000)] += count

    def percentiles(self) -> Percentiles | None:
        """Percentiles in milliseconds; None if nothing was added."""
        if not self._counts:
            return None
        values = sorted(self._counts.items())
        total = self._counts.total()
        return Percentiles(*(_at(values, total * part) for part in (0.5, 0.95, 0.99, 1)))


def _rounded(ms: float) -> float:
    if ms < 0.001:
        return 0.0
    return round(ms, 2 - math.floor(math.log10(ms)))


def _at(values: list[tuple[float, int]], rank: float) -> float:
    seen = 0
    for value, count in values:
        seen += count
        if seen >= rank - 1e-9:
            return value
    return values[-1][0]

"""A histogram of durations: what a percentile over many nodes can be computed from."""

from __future__ import annotations

from bisect import bisect_left

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds.  From less than an isolate takes at best to the end of waitUntil work."""


class Histogram:
    """How many durations were at most each of BOUNDS; ``counts`` has one more, for the longer."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one; on the way of every invocation, so this is all it does."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

"""Histogram of durations; histograms of several nodes can be added to compute percentiles."""

from __future__ import annotations

from bisect import bisect_left

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds: from below an isolate's fastest run to the 30 s limit of waitUntil."""


class Histogram:
    """Histogram with a count per bound of BOUNDS and one for longer durations; ``sum`` in seconds.

    A duration is counted once, for the first bound that is not below it.
    """

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration.  Runs for every invocation, so it must stay cheap."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

"""Exponential backoff between the attempts of an operation that fails."""

from __future__ import annotations

from random import Random


class Backoff:
    """Pauses in seconds: ``first``, then twice the one before, at most ``longest``.

    ``random`` varies each pause by up to a quarter, so that nodes that failed together do not
    retry together.
    """

    def __init__(
        self, first: float = 0.1, longest: float = 10.0, random: Random | None = None
    ) -> None:
        self.failures = 0
        """Consecutive failures."""
        self.pause = 0.0
        """Seconds to wait before the next attempt; 0 without a failure."""
        self._first = first
        self._longest = longest
        self._random = random

    def failed(self) -> float:
        """Count a failure; returns the pause before the next attempt."""
        # The exponent is limited because a float cannot hold 2 ** 1024.
        self.pause = min(self._first * 2.0 ** min(self.failures, 64), self._longest)
        self.failures += 1
        if self._random is not None:
            self.pause *= 0.75 + self._random.random() / 2
        return self.pause

    def reset(self) -> None:
        """The operation succeeded: the next failure is the first again."""
        self.failures = 0
        self.pause = 0.0

"""Schedule of a JetStream queue's delayed messages.

It is read from the subjects of the stream and updated locally between two reads; other nodes
announce their changes.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence

from edgesim.clock import Clock
from edgesim.config.queues import DELAY_SECONDS_MAX
from edgesim.jetstream.server import JetStream, Publication
from edgesim.queues.nats.messages import QueueSubjects, visible_at

FRESH_SECONDS = 1.0
"""Maximum age of the schedule; a hint from another node forces a read at once."""
WRONG_SECONDS = 3_600
"""Tolerance beyond the longest delay; a later time was set by a node with a wrong clock."""


class Delayed:
    """The delayed messages of one stream, in the order in which they are due."""

    def __init__(self, server: JetStream, stream: str, layout: QueueSubjects, clock: Clock) -> None:
        self._server = server
        self._stream = stream
        self._layout = layout
        self._clock = clock
        self._known: list[tuple[float, str]] = []  # visible at, subject
        self._read_at = -math.inf
        self._changes = 0

    def forget(self) -> None:
        """Invalidate the schedule after a change that was not recorded here."""
        self._read_at = -math.inf
        self._changes += 1

    def note(self, sent: Sequence[Publication]) -> None:
        """Record the delayed ones among the messages that this node has sent."""
        delayed = self._layout.subject("delayed", "")
        for each in sent:
            if each.subject.startswith(delayed):
                insort(self._known, (visible_at(each.subject), each.subject))
                self._changes += 1

    async def due(self, now: float) -> list[str]:
        """The subjects of the messages that are due."""
        await self._read()
        return [subject for when, subject in self._known if _due_at(when, now) <= now]

    async def first(self) -> list[float]:
        """The time when the first message is due, in a list that is empty if there is none."""
        await self._read()
        if not self._known:
            return []
        now = self._clock.now()
        # Check the last one too: its time may be beyond any valid delay.
        return [min(_due_at(self._known[at][0], now) for at in (0, -1))]

    async def _read(self) -> None:
        read_at, changes = self._clock.elapsed(), self._changes
        if read_at - self._read_at < FRESH_SECONDS:
            return
        found = await self._list()
        if self._changes != changes:
            # The read may be older than the local changes.  A surplus entry is harmless.
            found = sorted({*found, *self._known})
        self._known, self._read_at = found, read_at

    async def _list(self) -> list[tuple[float, str]]:
        delayed = await self._server.subjects(self._stream, self._layout.subject("delayed", ">"))
        return sorted((visible_at(subject), subject) for subject in delayed)


def _due_at(when: float, now: float) -> float:
    """Due time of a message; now, if a node whose clock was days ahead delayed it."""
    return now if when - now > DELAY_SECONDS_MAX + WRONG_SECONDS else when

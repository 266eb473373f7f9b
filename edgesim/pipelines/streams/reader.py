"""A reader: one INSERT statement of a pipeline, which moves a stream's windows into a sink."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import anyio

from edgesim.pipelines.segment import Segment
from edgesim.pipelines.streams.drops import Drops
from edgesim.pipelines.streams.positions import Position
from edgesim.pipelines.streams.window import StreamWindow, Written


class RollRules(Protocol):
    """The limits of a sink's windows."""

    @property
    def roll_interval(self) -> float:
        """Seconds after which a window ends."""

    @property
    def roll_bytes(self) -> float:
        """Bytes of rows that end a window."""


class Sink(Protocol):
    """The destination of windows."""

    name: str

    @property
    def config(self) -> RollRules:
        """When its windows end."""

    async def write(self, window: StreamWindow) -> Written:
        """Store a window's rows; a window that is stored already is not stored again.

        EdgesimError or OSError if that fails; the window is then written again later.
        """


class WindowReader:
    """The position of one statement in its stream, and the counts of what it has moved."""

    def __init__(self, name: str, sink: Sink, position: Position) -> None:
        self.name = name
        self.sink = sink
        self.position = position
        self.due = anyio.Event()
        """Set when a window has ended that the sink has to store."""
        self._watched: Segment | None = None
        self._ends_at = 0.0
        self.read = Written()
        self.written = Written()
        self.problem = ""
        """The error of the sink's last attempt; empty if it succeeded."""

    @property
    def is_writing(self) -> bool:
        """True if a window has ended and is not stored yet."""
        return self.position.last > 0

    def ahead(self, segments: Iterable[Segment]) -> list[Segment]:
        """The segments that are in no window that has ended."""
        after = max(self.position.first - 1, self.position.last)
        return [segment for segment in segments if segment.number > after]

    def is_past(self, segment: Segment) -> bool:
        """True if the segment is in the sink."""
        return segment.number < self.position.first

    def seconds_left(self, segments: Iterable[Segment], now: float) -> float | None:
        """Seconds until the window ends; None if there is no window, or one is being written."""
        ahead = [] if self.is_writing else self.ahead(segments)
        if not ahead:
            return None
        if sum(segment.bytes for segment in ahead) >= self.sink.config.roll_bytes:
            return 0
        if ahead[0] is not self._watched:
            # From here on by the event loop's time: the clock may be set back.
            interval = self.sink.config.roll_interval
            left = min(max(ahead[0].opened_at + interval - now, 0), interval)
            self._watched, self._ends_at = ahead[0], anyio.current_time() + left
        return max(self._ends_at - anyio.current_time(), 0)

    def inside(self, segments: Iterable[Segment]) -> list[Segment]:
        """The segments of the window that has ended."""
        first, last = self.position.first, self.position.last
        return [segment for segment in segments if first <= segment.number <= last]

    async def move(self, segments: Iterable[Segment]) -> tuple[int, Drops]:
        """Store the window that has ended.

        Returns the last segment that is in the sink now, and the rows that are not.
        """
        last, inside = self.position.last, self.inside(segments)
        window = StreamWindow(self.name, inside, self.position.start)
        written = await self.sink.write(window)
        _add(self.read, Written(window.rows, window.bytes))
        _add(self.written, written)
        return written.last or last, written.drops or Drops()


def _add(total: Written, more: Written) -> None:
    total.rows += more.rows
    total.bytes += more.bytes
    total.files += more.files

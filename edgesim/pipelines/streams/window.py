"""A window of a stream: the records that become one file of one sink."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import blake2b

import msgspec

from edgesim.model import R2Object
from edgesim.pipelines.segment import RowChunk, Segment
from edgesim.pipelines.streams.drops import Drops
from edgesim.pipelines.streams.positions import WindowStart


class Written(msgspec.Struct):
    """Counts of what a sink has written: rows, their bytes as text, and files.

    ``last`` is the last segment in a file that was stored before; 0 if the file is new.  ``drops``
    are the rows that the statement could not have.
    """

    rows: int = 0
    bytes: int = 0
    files: int = 0
    last: int = 0
    drops: Drops | None = None


LAST_SEGMENT = "edgesim-last-segment"
"""Custom metadata of a file: the number of the last segment in it."""
_NUMBER = re.compile("[0-9]{1,18}")


class StreamWindow:
    """Consecutive segments of a stream's log, for one reader.

    ``id`` depends on the reader and the first segment only: a window that is written again after a
    crash has the same id.  ``start`` is the saved beginning; by default that of the segments.
    """

    def __init__(
        self, reader: str, segments: Sequence[Segment], start: WindowStart | None = None
    ) -> None:
        if start is None and segments:
            start = start_of(segments[0])
        self._segments = segments
        self.last = segments[-1].number if segments else 0
        """Number of the last segment; 0 if there is none."""
        self.rows = sum(segment.rows for segment in segments)
        self.bytes = sum(segment.bytes for segment in segments)
        self.opened_at = datetime.fromtimestamp(start.opened_at if start else 0, UTC)
        seed = f"{start.key if start else ''} {reader}".encode()
        self.id = str(uuid.UUID(bytes=blake2b(seed, digest_size=16).digest(), version=4))

    @property
    def metadata(self) -> dict[str, str]:
        """The custom metadata of the window's file."""
        return {LAST_SEGMENT: str(self.last)}

    def last_in(self, file: R2Object) -> int:
        """The last segment in the window's file, which an earlier run has stored.

        It differs from the window's own if the positions were lost by a disk that lied: the window
        may have been longer or shorter then.
        """
        return segment_number(file.custom_metadata.get(LAST_SEGMENT)) or self.last

    def chunks(self) -> Iterator[RowChunk]:
        """The rows as newline-delimited JSON."""
        for segment in self._segments:
            yield from segment.chunks()

    def lines(self) -> Iterator[bytes]:
        """The lines of the chunks."""
        return (chunk.lines for chunk in self.chunks())


def start_of(segment: Segment) -> WindowStart:
    """The beginning of a window whose first segment this is."""
    return WindowStart(segment.key, segment.opened_at)


def segment_number(text: str | None) -> int:
    """The segment that a stored file names; 0 if it names none, as after a Worker's write."""
    return int(text) if text and _NUMBER.fullmatch(text) else 0

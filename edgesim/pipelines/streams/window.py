"""A window of a stream: the records that become one file of one sink."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import blake2b

import msgspec

from edgesim.pipelines.segment import Segment


class Written(msgspec.Struct):
    """Counts of what a sink has written: rows, their bytes as text, and files."""

    rows: int = 0
    bytes: int = 0
    files: int = 0


class StreamWindow:
    """Consecutive segments of a stream's log, for one reader.

    ``id`` depends on the reader and the first segment only: a window that is written again after a
    crash has the same id.
    """

    def __init__(self, reader: str, segments: Sequence[Segment]) -> None:
        self._segments = segments
        self.rows = sum(segment.rows for segment in segments)
        self.bytes = sum(segment.bytes for segment in segments)
        self.opened_at = datetime.fromtimestamp(segments[0].opened_at if segments else 0, UTC)
        seed = f"{segments[0].key if segments else ''} {reader}".encode()
        self.id = str(uuid.UUID(bytes=blake2b(seed, digest_size=16).digest(), version=4))

    def lines(self) -> Iterator[bytes]:
        """The rows as newline-delimited JSON, in chunks that end with a row."""
        for segment in self._segments:
            yield from segment.lines()

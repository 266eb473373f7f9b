"""A pipeline with SQL: its statements, each with a reader of its stream."""

from __future__ import annotations

from collections.abc import Sequence

from edgesim.pipelines.streams.reader import WindowReader
from edgesim.pipelines.streams.stream import RecordStream


class SqlPipeline:
    """The counters of one pipeline; its streams do the work."""

    def __init__(self, name: str, readers: Sequence[tuple[RecordStream, WindowReader]]) -> None:
        self.name = name
        self._readers = readers

    @property
    def records(self) -> int:
        """Number of rows that the statements have read from their streams."""
        return sum(reader.read.rows for _, reader in self._readers)

    @property
    def bytes(self) -> int:
        """Bytes of those rows, as NDJSON; a row that several statements read counts once.

        The platform bills a pipeline once, not each of its statements.
        """
        return max((reader.read.bytes for _, reader in self._readers), default=0)

    @property
    def pending(self) -> int:
        """Number of rows that some statement has not moved yet."""
        return max((stream.pending_of(reader) for stream, reader in self._readers), default=0)

    @property
    def objects(self) -> int:
        """Number of files written."""
        return sum(reader.written.files for _, reader in self._readers)

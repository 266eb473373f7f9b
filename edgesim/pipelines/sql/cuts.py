"""Cuts of a window's batches, where a batch exceeds a limit or ends the engine.

They are saved before a file is made with them, so that a file that is made again after a crash has
the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from edgesim import durable
from edgesim.pipelines.segment import RowChunk
from edgesim.pipelines.sql.wire import Query
from edgesim.pipelines.streams.checked import with_checksum, without_checksum

BATCH_BYTES = 1 << 22
"""Rows are sent in batches of about this size."""

log = structlog.get_logger()


class Piece(msgspec.Struct, array_like=True, frozen=True):
    """Consecutive rows of a batch, and the CPU seconds that they may take.

    A piece with a reason is one row, which is left out.
    """

    rows: int
    seconds: float
    reason: str = ""


class _SavedCuts(msgspec.Struct):
    """The content of a file: the pieces of each batch, for one text of the query."""

    sql: str
    pieces: dict[int, list[Piece]] = {}


class Cuts:
    """The cuts of one window for one query.  Without a file they are not saved."""

    def __init__(self, query: Query, file: Path | None) -> None:
        self._file = file
        self._saved = _SavedCuts(query.sql)
        if file is not None and file.is_file():
            text = without_checksum(file.read_bytes())
            if text is None:
                log.error("cuts of a window damaged, they are made again", file=str(file))
                return
            saved = msgspec.json.decode(text, type=_SavedCuts)
            if saved.sql == query.sql:
                self._saved = saved

    def of(self, number: int, rows: int, seconds: float) -> list[Piece]:
        """The pieces of a batch of so many rows; a batch that is not cut is one piece."""
        pieces = self._saved.pieces.get(number, [])
        if sum(piece.rows for piece in pieces) != rows:  # not cut, or the log was damaged
            pieces = self._saved.pieces[number] = [Piece(rows, seconds)]
        return pieces

    def replace(self, number: int, index: int, found: list[Piece]) -> None:
        """Replace a piece of a batch by smaller ones, durably; OSError if that fails."""
        self._saved.pieces[number][index : index + 1] = found
        if self._file is not None:
            durable.make_folder(self._file.parent)
            durable.write_file(self._file, with_checksum(msgspec.json.encode(self._saved)))


def batches(rows: Iterator[RowChunk]) -> Iterator[list[RowChunk]]:
    """The rows in batches of about BATCH_BYTES, in the chunks that they come in."""
    chunks: list[RowChunk] = []
    size = 0
    for chunk in rows:
        chunks.append(chunk)
        size += len(chunk.lines)
        if size >= BATCH_BYTES:
            yield chunks
            chunks, size = [], 0
    if chunks:
        yield chunks

"""Positions of readers in a stream's log: which windows are in the sink, and which are on the way.

A window's extent is durable before its file is written, so a repeated write after a crash has the
same content and the same key.  Two files are written in turn: if the newer one is damaged, the
other (or none, after the first save) is one step behind, and the metadata of the stored files makes
up for that step.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from edgesim import durable
from edgesim.errors import RunError
from edgesim.pipelines.streams.checked import with_checksum, without_checksum

_FILES = ("positions.0.json", "positions.1.json")

log = structlog.get_logger()


class WindowStart(msgspec.Struct, frozen=True):
    """Key and time of a window's first segment: they name its file.

    The segment is removed once all readers are past it.  If the file of positions that says so is
    damaged, the one before still names the window, and the window's file is found.
    """

    key: str
    opened_at: float


class Position(msgspec.Struct, frozen=True):
    """``first`` is the number of the first segment that is not in the sink yet.

    ``last`` is the number of the last segment of the window that is being written, and ``start``
    its beginning; 0 and None if none is.
    """

    first: int = 1
    last: int = 0
    start: WindowStart | None = None


class _SavedPositions(msgspec.Struct):
    """The content of a file; ``save`` counts the saves."""

    save: int = 0
    readers: dict[str, Position] = {}


class Positions:
    """The positions by reader, in a folder.  RunError if both files are damaged."""

    def __init__(self, folder: Path) -> None:
        durable.make_folder(folder)
        self._files = [folder / name for name in _FILES]
        self._saved = self._read()

    def of(self, reader: str, first: int) -> Position:
        """The reader's position; a new reader begins at the segment ``first``."""
        return self._saved.readers.setdefault(reader, Position(first))

    def keep(self, readers: set[str]) -> None:
        """Drop the positions of other readers."""
        for reader in self._saved.readers.keys() - readers:
            del self._saved.readers[reader]

    @property
    def first_free(self) -> int:
        """A segment number that no position refers to, nor any after it."""
        positions = self._saved.readers.values()
        return max((max(each.first, each.last + 1) for each in positions), default=1)

    def save(self, changes: Mapping[str, Position]) -> None:
        """Make changed positions durable.  RunError if that fails; nothing is changed then."""
        saved = _SavedPositions(self._saved.save + 1, {**self._saved.readers, **changes})
        file = self._files[saved.save % len(self._files)]
        try:
            durable.write_file(file, with_checksum(msgspec.json.encode(saved)))
        except OSError as error:
            raise RunError(f"{file}: cannot save a stream's positions: {error}") from error
        self._saved = saved

    def _read(self) -> _SavedPositions:
        found, damaged = [], 0
        for file in self._files:
            if not file.is_file():
                continue
            text = without_checksum(file.read_bytes())
            if text is None:
                damaged += 1
                log.error("positions of a stream damaged", file=str(file))
            else:
                found.append(msgspec.json.decode(text, type=_SavedPositions))
        if damaged == len(self._files):
            problem = f"{self._files[0]}: the stream's positions are damaged, in both files"
            raise RunError(problem, "restore one of them, or delete the stream's folder")
        return max(found, key=lambda each: each.save, default=_SavedPositions())

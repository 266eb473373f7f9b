"""Positions of readers in a stream's log: which windows are in the sink, and which are on the way.

A window's extent is durable before its file is written, so a repeated write after a crash has the
same content and the same key.  Two copies are kept: a damaged one is reported and the other used.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from edgesim import durable
from edgesim.errors import RunError

_CHECKSUM_DIGITS = 8
_COPIES = ("positions.json", "positions.copy.json")

log = structlog.get_logger()


class Position(msgspec.Struct, frozen=True):
    """``first`` is the number of the first segment that is not in the sink yet.

    ``last`` is the number of the last segment of the window that is being written; 0 if none is.
    """

    first: int = 1
    last: int = 0


class Positions:
    """The positions by reader, in a folder.  RunError if both copies are damaged."""

    def __init__(self, folder: Path) -> None:
        durable.make_folder(folder)
        self._files = [folder / name for name in _COPIES]
        self._by_reader = self._read()

    def of(self, reader: str, first: int) -> Position:
        """The reader's position; a new reader begins at the segment ``first``."""
        return self._by_reader.setdefault(reader, Position(first))

    def keep(self, readers: set[str]) -> None:
        """Drop the positions of other readers."""
        for reader in self._by_reader.keys() - readers:
            del self._by_reader[reader]

    @property
    def first_free(self) -> int:
        """A segment number that no position refers to, nor any after it."""
        return max((max(each.first, each.last + 1) for each in self._by_reader.values()), default=1)

    def save(self, changes: Mapping[str, Position]) -> None:
        """Make changed positions durable.  RunError if that fails; nothing is changed then."""
        positions = {**self._by_reader, **changes}
        text = msgspec.json.encode(positions)
        data = f"{zlib.crc32(text):0{_CHECKSUM_DIGITS}x} ".encode() + text
        for file in self._files:
            try:
                durable.write_file(file, data)
            except OSError as error:
                raise RunError(f"{file}: cannot save a stream's positions: {error}") from error
        self._by_reader = positions

    def _read(self) -> dict[str, Position]:
        damaged = False
        for file in self._files:
            if not file.is_file():
                continue
            found = _decoded(file.read_bytes())
            if found is not None:
                return found
            damaged = True
            log.error("positions of a stream damaged", file=str(file))
        if damaged:
            problem = f"{self._files[0]}: both copies of the stream's positions are damaged"
            raise RunError(problem, "restore one of them, or delete the stream's folder")
        return {}


def _decoded(data: bytes) -> dict[str, Position] | None:
    checksum, text = data[:_CHECKSUM_DIGITS], data[_CHECKSUM_DIGITS + 1 :]
    if checksum != f"{zlib.crc32(text):0{_CHECKSUM_DIGITS}x}".encode():
        return None
    return msgspec.json.decode(text, type=dict[str, Position])

"""The write-ahead log of one Pipeline: a record that ``append`` has returned for survives kill -9.

One segment file is one window, and becomes one object.  A segment is a header frame (when its
window began), frames of records, and, once the window is over, a seal frame with the key of the
object: decided and durable before the object is written, so that a crash in between ends in the
same object and not in a second one.  Frames carry a checksum; what follows the first broken frame
was never acknowledged and is cut off.

Files are written inline: a thread would break the virtual clock, and group commit keeps fdatasync
to one call for whatever arrived during the last one.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from edgesim.errors import RunError

_FRAME = struct.Struct(">BII")  # kind, payload length, CRC-32 of kind and payload
_HEADER, _RECORDS, _SEAL = 1, 2, 3
_SUFFIX = ".wal"

log = structlog.get_logger()


class Header(msgspec.Struct, frozen=True):
    """The first frame; ``opened_at`` is Unix seconds."""

    opened_at: float


class Seal(msgspec.Struct, frozen=True):
    """The last frame: which object the segment becomes."""

    key: str
    rows: int


class Segment:
    """One window's file."""

    def __init__(self, path: Path, opened_at: float) -> None:
        self.path = path
        self.opened_at = opened_at
        self.rows = 0
        self.bytes = 0
        self.seal: Seal | None = None
        self._file: BinaryIO | None = None

    @property
    def number(self) -> int:
        """Segments are numbered in the order of their windows."""
        return int(self.path.stem)

    @classmethod
    def create(cls, path: Path, opened_at: float) -> Segment:
        """A new, empty segment, durable with its name."""
        segment = cls(path, opened_at)
        segment._write(_HEADER, msgspec.json.encode(Header(opened_at)))
        _sync_folder(path.parent)
        return segment

    @classmethod
    def recover(cls, path: Path) -> Segment | None:
        """The segment as a crash left it, cut to its last whole frame; None if nothing is whole."""
        frames = list(_frames(path))
        if not frames or frames[0][1] != _HEADER:
            log.warning("pipeline log without a whole header, set aside", file=str(path))
            path.rename(path.with_suffix(".broken"))
            return None
        segment = cls(path, msgspec.json.decode(frames[0][2], type=Header).opened_at)
        for _, kind, payload in frames[1:]:
            if kind == _RECORDS:
                segment.rows += payload.count(b"\n")
                segment.bytes += len(payload)
            elif kind == _SEAL:
                segment.seal = msgspec.json.decode(payload, type=Seal)
        last_start, _, last = frames[-1]
        whole = last_start + _FRAME.size + len(last)
        if (cut := path.stat().st_size - whole) > 0:
            log.warning("pipeline log had a torn end, cut off", file=str(path), bytes=cut)
            os.truncate(path, whole)
        return segment

    def append(self, lines: bytes, rows: int) -> None:
        """Make ``lines`` (NDJSON, each ending in a newline) durable; RunError where that fails."""
        self._write(_RECORDS, lines)
        self.rows += rows
        self.bytes += len(lines)

    def close(self, seal: Seal) -> None:
        """End the window: from here on the segment is this object."""
        self._write(_SEAL, msgspec.json.encode(seal))
        self.seal = seal
        self.release()

    def release(self) -> None:
        """Close the file; the segment stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def lines(self) -> Iterator[bytes]:
        """The records, as written, in chunks."""
        for _, kind, payload in _frames(self.path):
            if kind == _RECORDS:
                yield payload

    def remove(self) -> None:
        """Forget the window: its object is durable."""
        self.release()
        self.path.unlink(missing_ok=True)

    def _write(self, kind: int, payload: bytes) -> None:
        try:
            if self._file is None:
                self._file = self.path.open("ab", buffering=0)
            start = self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise RunError(f"{self.path}: cannot open the pipeline's log: {error}") from error
        checksum = zlib.crc32(payload, kind)
        frame = _FRAME.pack(kind, len(payload), checksum) + payload
        try:
            if self._file.write(frame) != len(frame):
                raise OSError("short write")
            os.fdatasync(self._file.fileno())
        except OSError as error:
            # Half a frame must not stand before the next one.
            os.truncate(self.path, start)
            raise RunError(f"{self.path}: cannot write the pipeline's log: {error}") from error


class Log:
    """The segments of one Pipeline, oldest first; the last unsealed one takes records."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        found = [Segment.recover(path) for path in sorted(folder.glob(f"*{_SUFFIX}"))]
        segments = [segment for segment in found if segment is not None]
        self.sealed = [segment for segment in segments if segment.seal is not None]
        unsealed = [segment for segment in segments if segment.seal is None]
        self.open = unsealed[-1] if unsealed else None
        self._next = max((segment.number for segment in segments), default=0) + 1

    def current(self, now: float) -> Segment:
        """The open segment; a new window begins now if there is none."""
        if self.open is None:
            try:
                self.open = Segment.create(self._folder / f"{self._next:012d}{_SUFFIX}", now)
            except OSError as error:
                raise RunError(f"{self._folder}: cannot begin a log segment: {error}") from error
            self._next += 1
        return self.open

    def seal(self, key: str) -> Segment:
        """End the open window as the object ``key``."""
        segment = self.open
        if segment is None:
            raise RunError(f"{self._folder}: no window is open")
        segment.close(Seal(key, segment.rows))
        self.open = None
        self.sealed.append(segment)
        return segment

    def forget(self, segment: Segment) -> None:
        """The object of a sealed segment is durable."""
        segment.remove()
        self.sealed.remove(segment)


def _frames(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(position, kind, payload) of every whole frame, up to the first that is not."""
    with path.open("rb") as file:
        position = 0
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            kind, length, checksum = _FRAME.unpack(head)
            payload = file.read(length)
            if len(payload) < length or zlib.crc32(payload, kind) != checksum:
                return
            yield position, kind, payload
            position += _FRAME.size + length


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

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
from contextlib import suppress
from io import FileIO
from pathlib import Path

import msgspec
import structlog

from edgesim import durable
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
        self._file: FileIO | None = None
        self._end = 0  # of the last whole frame, in bytes

    @property
    def number(self) -> int:
        """Segments are numbered in the order of their windows."""
        return int(self.path.stem)

    @classmethod
    def create(cls, path: Path, opened_at: float) -> Segment:
        """A new, empty segment, durable with its name."""
        segment = cls(path, opened_at)
        segment._write(_HEADER, msgspec.json.encode(Header(opened_at)))
        durable.flush_folder(path.parent)
        return segment

    @classmethod
    def recover(cls, path: Path) -> Segment | None:
        """The segment as a crash left it, cut to its last whole frame; None if nothing is whole."""
        segment: Segment | None = None
        for position, kind, payload in _frames(path):
            if segment is None:
                if kind != _HEADER:
                    break
                segment = cls(path, msgspec.json.decode(payload, type=Header).opened_at)
            elif kind == _RECORDS:
                segment.rows += payload.count(b"\n")
                segment.bytes += len(payload)
            elif kind == _SEAL:
                segment.seal = msgspec.json.decode(payload, type=Seal)
            segment._end = position + _FRAME.size + len(payload)
        if segment is None:
            log.warning("pipeline log without a whole header, set aside", file=str(path))
            path.rename(path.with_suffix(".broken"))
            return None
        if (cut := path.stat().st_size - segment._end) > 0:
            log.warning("pipeline log had a torn end, cut off", file=str(path), bytes=cut)
            os.truncate(path, segment._end)
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
        durable.remove(self.path)

    def _write(self, kind: int, payload: bytes) -> None:
        frame = _FRAME.pack(kind, len(payload), zlib.crc32(payload, kind)) + payload
        try:
            if self._file is None:
                self._file = FileIO(self.path, "a")
            self._cut()  # what a failed write left, if it could not be cut off then
            durable.write(self._file, frame)
            durable.flush(self._file.fileno())
        except OSError as error:
            # Half a frame must not stand before the next one: at recovery it would hide it.
            with suppress(OSError):
                self._cut()
            raise RunError(f"{self.path}: cannot write the pipeline's log: {error}") from error
        self._end += len(frame)

    def _cut(self) -> None:
        if self._file is not None and self._file.seek(0, os.SEEK_END) > self._end:
            os.ftruncate(self._file.fileno(), self._end)


class Log:
    """The segments of one Pipeline, oldest first; the last unsealed one takes records."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        durable.make_folder(folder)
        files = sorted(folder.glob(f"*{_SUFFIX}"))
        # Counted before recovery: a file that is set aside keeps its number.
        numbers = [int(file.stem) for file in folder.iterdir() if file.stem.isdigit()]
        self._next = max(numbers, default=0) + 1
        segments = [found for file in files if (found := Segment.recover(file)) is not None]
        self.sealed = [segment for segment in segments if segment.seal is not None]
        unsealed = [segment for segment in segments if segment.seal is None]
        self.open = unsealed.pop() if unsealed else None
        self.unsealed = unsealed
        """Earlier windows whose seal a damaged disk has lost: they still want a key."""

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
        """End the oldest window that is not sealed as the object ``key``."""
        segment = self.unsealed[0] if self.unsealed else self.open
        if segment is None:
            raise RunError(f"{self._folder}: no window is open")
        segment.close(Seal(key, segment.rows))
        if segment is self.open:
            self.open = None
        else:
            self.unsealed.remove(segment)
        self.sealed.append(segment)
        return segment

    def forget(self, segment: Segment) -> None:
        """The object of a sealed segment is durable."""
        segment.remove()
        self.sealed.remove(segment)


def _frames(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(position, kind, payload) of every whole frame, up to the first that is not."""
    with path.open("rb") as file:
        left = path.stat().st_size
        position = 0
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            kind, length, checksum = _FRAME.unpack(head)
            left -= _FRAME.size + length
            if left < 0:  # asked first: a damaged length may be any number
                return
            payload = file.read(length)
            if zlib.crc32(payload, kind) != checksum:
                return
            yield position, kind, payload
            position += _FRAME.size + length

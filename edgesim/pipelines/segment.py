"""One window's file in the write-ahead log."""

from __future__ import annotations

import os
from array import array
from collections.abc import Generator, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from edgesim import durable
from edgesim.errors import RunError
from edgesim.pipelines import frames
from edgesim.pipelines.frames import Window
from edgesim.pipelines.recovery import Recovered, Seal, recover, set_aside
from edgesim.tracing import TraceSources

log = structlog.get_logger()


class RowChunk(NamedTuple):
    """Consecutive records as NDJSON, and their number."""

    lines: bytes
    rows: int


class Segment:
    """A window in its file; ``rows`` and ``bytes`` count its records.

    The object's key is chosen when the window opens, and every frame carries it.  A window opened
    by an earlier version of edgesim has none until it is sealed.
    """

    def __init__(self, path: Path, descriptor: int, window: Window, opened_at: float) -> None:
        self.path = path
        self.opened_at = opened_at
        self.rows = 0
        self.bytes = 0
        self.seal: Seal | None = None
        self.is_resumable = True
        """True if the file can take more records."""
        self.sources = TraceSources()
        """Trace contexts of its records, those of this run."""
        self._window = window
        self._places: array[int] = array("Q")
        self._rows_at: array[int] = array("Q")  # the number of records, by place
        self._end = 0  # byte after the last complete frame
        self._descriptor: int | None = descriptor
        self._identity = durable.identity(path)
        self._suspect = False  # a sync has failed: this file is not written any more

    @property
    def number(self) -> int:
        """Number of the segment, in the order of the windows."""
        return int(self.path.stem)

    @property
    def key(self) -> str:
        """The key of the window's object; empty until it is chosen."""
        return self.seal.key if self.seal else self._window.key

    @classmethod
    def create(cls, path: Path, opened_at: float, key: str = "") -> Segment:
        """A new, empty segment, durable with its directory entry.  Raises OSError or RunError."""
        name = f"{path.name} {opened_at} {key}".encode()
        window_id = int.from_bytes(blake2b(name, digest_size=8).digest())
        segment = cls(path, durable.create(path), Window(window_id, opened_at, key), opened_at)
        try:
            segment._write([(frames.HEADER, b"")])
            durable.flush_folder(path.parent)
        except (OSError, RunError):
            segment.release()
            durable.remove(path)
            raise
        return segment

    @classmethod
    def recover(cls, path: Path) -> Generator[None, None, Segment | None]:
        """The segment of an existing file; None if the file has no complete frame.

        Yields between pieces of work.  Raises OSError, or RunError if damaged bytes cannot be set
        aside.
        """
        descriptor = durable.open_existing(path)
        try:
            found = yield from recover(path, descriptor, os.fstat(descriptor).st_size)
            if found is not None:
                return cls._of(path, descriptor, found)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        aside = path.with_suffix(".broken")
        log.error("pipeline log without a whole frame, set aside", file=str(path), saved=aside.name)
        durable.rename(path, aside)
        return None

    @classmethod
    def _of(cls, path: Path, descriptor: int, found: Recovered) -> Segment:
        window = found.window or Window(0, found.opened_at, "")
        segment = cls(path, descriptor, window, found.opened_at)
        segment.rows, segment.bytes, segment.seal = found.rows, found.bytes, found.seal
        segment._places, segment._rows_at = found.places, found.rows_at
        segment._end = found.end
        segment.is_resumable = found.window is not None and found.seal is None
        if found.rest and found.seal is None:
            durable.truncate(descriptor, found.end)
            durable.flush(descriptor, path)
        return segment

    def append(self, lines: bytes, rows: int) -> None:
        """Make ``lines`` (NDJSON, each ending in a newline) durable; RunError if that fails."""
        place = self._end
        try:
            self._write([(frames.RECORDS, lines)])
        except OSError as error:
            raise RunError(f"{self.path}: cannot write the pipeline's log: {error}") from error
        self._places.append(place)
        self._rows_at.append(rows)
        self.rows += rows
        self.bytes += len(lines)

    def close(self, key: str = "") -> None:
        """Seal the window: the segment then stands for its object.  RunError if that fails.

        The seal is written twice, so that damage to one copy does not lose it.  A window whose
        frames hold its key does not depend on the seal.
        """
        seal = Seal(self._window.key or key, self.rows)
        text = msgspec.json.encode(seal)
        try:
            self._write([(frames.SEAL, text), (frames.SEAL, text)])
        except (OSError, RunError) as error:
            if not self._window.key:
                raise RunError(f"{self.path}: cannot end the pipeline's window: {error}") from error
            log.warning("pipeline log not sealed", file=str(self.path), error=str(error))
        self.seal = seal

    def release(self) -> None:
        """Close the file; the segment can be read again later."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def chunks(self) -> Iterator[RowChunk]:
        """The records, as written; a frame damaged meanwhile is left out.

        Its bytes are set aside.  Reads the open file, so the records outlive its name.
        """
        for place, rows in zip(self._places, self._rows_at, strict=True):
            if payload := self._payload(place):
                yield RowChunk(payload, rows)

    def lines(self) -> Iterator[bytes]:
        """The lines of the chunks."""
        return (chunk.lines for chunk in self.chunks())

    def remove(self) -> None:
        """Delete the file of a window whose object is durable."""
        self.release()
        if durable.identity(self.path) == self._identity:
            durable.remove(self.path)
            try:
                durable.flush_folder(self.path.parent)
            except OSError as error:  # after a power cut the file may reappear: its object exists
                log.warning(
                    "removal of a pipeline log not flushed", file=str(self.path), error=str(error)
                )

    def check_in_place(self) -> None:
        """RunError if the file was deleted or replaced."""
        durable.check_in_place(self.path, self._identity)

    def _payload(self, place: int) -> bytes | None:
        descriptor = self._opened()
        payload = frames.payload_at(descriptor, place)
        if payload is None and (old := frames.old_frame_at(descriptor, place, self._end)):
            payload = old[1]
        if payload is None:
            end = min((each for each in self._places if each > place), default=self._end)
            saved = set_aside(self.path, descriptor, place, end)
            lost = {"file": str(self.path), "offset": place, "bytes": end - place, "saved": saved}
            log.error("pipeline log damaged, records lost", **lost)
        return payload

    def _opened(self) -> int:
        if self._descriptor is None:
            self._descriptor = durable.open_existing(self.path)
        return self._descriptor

    def _write(self, kinds: list[tuple[int, bytes]]) -> None:
        """Append frames and sync them; a failed write is truncated again."""
        if self._suspect:
            self._replace()
        descriptor, end = self._opened(), self._end
        data = b""
        for kind, payload in kinds:
            data += frames.encode(kind, self._window, end + len(data), self.rows, payload)
        try:
            durable.write_at(descriptor, self.path, data, end)
        except OSError:
            with suppress(OSError):  # a partial frame at the end is harmless
                durable.truncate(descriptor, end)
            raise
        try:
            durable.flush(descriptor, self.path)
        except OSError:
            self._suspect = True
            raise
        self.check_in_place()
        self._end = end + len(data)

    def _replace(self) -> None:
        """Replace a file that could not be synced by a copy.

        After a failed sync the kernel may treat pages as clean that the disk does not have.  The
        acknowledged contents are read back and written to another file.
        """
        self.check_in_place()
        durable.write_file(self.path, durable.read_at(self._opened(), self._end, 0))
        self.release()
        self._opened()
        self._identity = durable.identity(self.path)
        self._suspect = False

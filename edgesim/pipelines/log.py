"""The write-ahead log of one Pipeline: a record survives a power cut once ``append`` has returned.

One segment file holds one window and becomes one object.  Every frame in it has a checksum and the
object's key, which is chosen when the window opens: the frames that survive a crash or a damaged
disk become that object and no second one.

The code here is synchronous: the Pipeline writes in a thread, one operation at a time.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Generator
from operator import attrgetter
from pathlib import Path

import structlog

from edgesim import durable
from edgesim.errors import RunError
from edgesim.pipelines.recovery import Seal
from edgesim.pipelines.segment import Segment

__all__ = ["Seal", "Segment", "WriteAheadLog"]

SUFFIX = ".wal"
OPEN_FILES_MAX = 32
"""Sealed segments that keep their file open; the others are reopened when they are read."""

log = structlog.get_logger()


class WriteAheadLog:
    """The segments of one Pipeline, oldest first; ``open`` accepts records.

    ``sealed`` segments are complete and have a key.  ``unsealed`` ones are complete and need a key:
    an earlier version of edgesim left them.  ``waiting`` are files that ``recover`` has not read
    yet.
    """

    def __init__(
        self, folder: Path, recover_bytes_max: float = float("inf"), first_number: int = 1
    ) -> None:
        """Recovers the files of ``folder`` at once, unless larger than ``recover_bytes_max``.

        ``first_number``: the lowest number of a new segment.
        """
        self._folder = folder
        durable.make_folder(folder)
        # edgesim may have been killed between creating a file and flushing its directory entry.
        durable.flush_folder(folder)
        self._identity = durable.identity(folder)
        self.waiting = sorted(folder.glob(f"*{SUFFIX}"))
        self._newest = self.waiting[-1] if self.waiting else None
        # A file that was set aside keeps its number.
        names = [file.name.partition(".")[0] for file in folder.iterdir()]
        used = [int(name) for name in names if name.isdigit()]
        self._next = max([*used, first_number - 1]) + 1
        self.sealed: list[Segment] = []
        self.unsealed: list[Segment] = []
        self.open: Segment | None = None
        if sum(file.stat().st_size for file in self.waiting) <= recover_bytes_max:
            for _ in self.recover():
                pass

    def recover(self) -> Generator[None, None, None]:
        """Read the waiting files; yields between pieces of work, so that other tasks can run.

        A file that cannot be read, or whose damaged bytes cannot be set aside, is reported and
        waits for the next call.  A file leaves ``waiting`` once its records are in a segment, so
        that another thread sees them in one place or the other.
        """
        for path in list(self.waiting):
            try:
                segment = yield from Segment.recover(path)
            except (OSError, RunError) as error:
                log.error("pipeline log not recovered", file=str(path), error=str(error))
                continue
            if segment is not None:
                self._place(segment)
            self.waiting.remove(path)
        self._newest = None

    def _place(self, segment: Segment) -> None:
        """Resume only the newest window, and only at the first call: later, another may be open.

        An earlier window without a seal has lost its seal.
        """
        if segment.is_resumable and segment.key and segment.path == self._newest:
            self.open = segment
        elif segment.key:
            self._end(segment)
        else:
            self.unsealed.append(segment)
            segment.release()

    def current(self, now: float, key: str = "") -> Segment:
        """The open segment; if there is none, a new window opens now, for object ``key``.

        RunError if it cannot be created, or if the log was deleted or replaced.
        """
        if self.open is None:
            durable.check_in_place(self._folder, self._identity)
            path = self._folder / f"{self._next:012d}{SUFFIX}"
            self._next += 1  # also after a failure: its file may exist
            try:
                self.open = Segment.create(path, now, key)
            except OSError as error:
                raise RunError(f"{self._folder}: cannot begin a log segment: {error}") from error
        return self.open

    def append(self, now: float, key: str, lines: bytes, rows: int) -> Segment:
        """Make records durable in the current window (see ``current``) and return it."""
        window = self.current(now, key)
        window.append(lines, rows)
        return window

    def seal(self, key: str = "") -> Segment:
        """Seal the oldest unsealed window; ``key`` is for one that has none yet."""
        segment = self.unsealed[0] if self.unsealed else self.open
        if segment is None:
            raise RunError(f"{self._folder}: no window is open")
        segment.close(key)
        if segment is self.open:
            self.open = None
        else:
            self.unsealed.remove(segment)
        self._end(segment)
        return segment

    def _end(self, segment: Segment) -> None:
        insort(self.sealed, segment, key=attrgetter("number"))
        if len(self.sealed) > OPEN_FILES_MAX:
            segment.release()

    def retire(self) -> None:
        """Close the open window without a seal; it accepts no more records."""
        if self.open is not None:
            self._end(self.open)
            self.open = None

    def forget(self, segment: Segment) -> None:
        """Remove a sealed segment whose object is durable."""
        segment.remove()
        self.sealed.remove(segment)

    def close(self) -> None:
        """Close all files; their contents are recovered at the next start."""
        for segment in (*self.sealed, *self.unsealed, *([self.open] if self.open else ())):
            segment.release()

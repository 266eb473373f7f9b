"""Standard output and standard error of a service: writing to them never fails and never waits.

The data path must not depend on who reads the log.  Text goes into a bounded queue, and a thread
writes it in order.  What cannot be written (a reader that does not read or has gone, a full disk,
a terminal that was closed) is dropped and counted; when writing works again, one line says how
many lines were dropped.

Tried and dropped: a non-blocking descriptor.  The flag belongs to the open file, so it would change
under every other process that has the same terminal or pipe.
"""

from __future__ import annotations

import io
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from itertools import accumulate

QUEUE_BYTES_MAX = 8 << 20
"""Text that waits for the reader; what comes beyond it is dropped."""
BATCH_BYTES = 1 << 16
FLUSH_SECONDS = 2.0
"""How long the end of the process waits for a reader that does not read."""

_writers: list[LineWriter] = []


def dropped() -> int:
    """Lines that this process has dropped on its standard streams."""
    return sum(writer.dropped for writer in _writers)


def flush(seconds: float = FLUSH_SECONDS) -> None:
    """Wait until all text is written or dropped, at most so many seconds for each stream."""
    for writer in _writers:
        writer.flush(seconds)


class LineWriter:
    """Writes lines to a descriptor, in order, from a thread of its own.

    ``report`` makes the text that says how many lines were dropped.
    """

    def __init__(
        self, fd: int, report: Callable[[int], str], queue_bytes_max: int = QUEUE_BYTES_MAX
    ) -> None:
        self.dropped = 0
        self._fd = fd
        self._report = report
        self._queue_bytes_max = queue_bytes_max
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._changed = threading.Condition()
        self._is_writing = False
        self._unreported = 0
        self._is_inside_line = False
        self._thread: threading.Thread | None = None
        _writers.append(self)

    def put(self, text: str) -> None:
        """Queue one line, or the beginning of one; drop it if the queue is full."""
        data = text.encode("utf-8", "backslashreplace")
        with self._changed:
            if self._queued_bytes + len(data) > self._queue_bytes_max:
                self._drop(1)
            else:
                self._append(data)

    def flush(self, seconds: float) -> None:
        """Wait until everything is written or dropped, the report of dropped lines included."""
        with self._changed:
            if self._unreported and not self._queue:
                self._append(b"")
            self._changed.wait_for(lambda: not (self._queue or self._is_writing), seconds)

    def _append(self, data: bytes) -> None:
        self._queue.append(data)
        self._queued_bytes += len(data)
        if self._thread is None:
            name = f"writer of descriptor {self._fd}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        elif not self._is_writing:
            self._changed.notify_all()

    def _drop(self, lines: int) -> None:
        self.dropped += lines
        self._unreported += lines

    def _run(self) -> None:
        while True:
            self._write(*self._take())

    def _take(self) -> tuple[int, list[bytes]]:
        """The number of dropped lines to report, and the next lines: as much as one write."""
        with self._changed:
            self._is_writing = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: bool(self._queue))
            self._is_writing = True
            lines: list[bytes] = []
            size = 0
            while self._queue and size < BATCH_BYTES:
                lines.append(self._queue.popleft())
                size += len(lines[-1])
            self._queued_bytes -= size
            return self._unreported, lines

    def _write(self, unreported: int, lines: list[bytes]) -> None:
        # What an error has cut off must not run into the next line.
        head = b"\n" if self._is_inside_line else b""
        if unreported:
            head += self._report(unreported).encode()
        data = b"".join([head, *lines])
        written = self._write_all(data)
        if written:
            self._is_inside_line = written < len(data) and data[written - 1 : written] != b"\n"
        _, *ends = accumulate(map(len, lines), initial=len(head))
        with self._changed:
            if written >= len(head):
                self._unreported -= unreported
            self._drop(sum(end > written for line, end in zip(lines, ends, strict=True) if line))

    def _write_all(self, data: bytes) -> int:
        """Write it, waiting for the reader where need be; how many bytes could be written."""
        written = 0
        while written < len(data):
            try:
                written += os.write(self._fd, data[written:])
            except BlockingIOError:  # the descriptor was made non-blocking by another process
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
            except OSError:
                return written
        return written


class LineStream(io.TextIOBase):
    """A text stream over a LineWriter, in the place of ``sys.stdout`` or ``sys.stderr``."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, fd: int, writer: LineWriter) -> None:
        self._fd = fd
        self._writer = writer
        self._begun = ""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, text: str) -> int:
        lines, newline, rest = (self._begun + text).rpartition("\n")
        self._begun = rest
        if newline:
            self._writer.put(lines + newline)
        return len(text)

    def flush(self) -> None:
        """Queue the line that was begun; does not wait."""
        begun, self._begun = self._begun, ""
        if begun:
            self._writer.put(begun)

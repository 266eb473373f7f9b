"""Standard output and standard error of a service: writes never fail and never block.

The data path must not depend on the reader of the log.  Text goes into a bounded queue, and a
thread writes it in order.  Text that cannot be written (a slow or closed reader, a full disk, a
closed terminal) is dropped and counted; when writing works again, one line reports the number of
dropped lines.

Tried and rejected: a non-blocking file descriptor.  The flag belongs to the open file, so it would
affect every other process with the same terminal or pipe.
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
"""Limit of text that waits for the reader; further text is dropped."""
BATCH_BYTES = 1 << 16
FLUSH_SECONDS = 2.0
"""Maximum time that the end of the process waits for a slow reader."""

_writers: list[LineWriter] = []


def dropped() -> int:
    """Number of lines that this process has dropped on its standard streams."""
    return sum(writer.dropped for writer in _writers)


def flush(seconds: float = FLUSH_SECONDS) -> None:
    """Wait until all text is written or dropped, at most ``seconds`` for each stream."""
    for writer in _writers:
        writer.flush(seconds)


class LineWriter:
    """Writes lines to a file descriptor, in order, from its own thread.

    ``report`` returns the text that reports a number of dropped lines.
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
        """Wait until everything is written or dropped, including the report of dropped lines."""
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
        """Number of dropped lines to report, and the lines of the next write."""
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
        # A line that an error has truncated must not run into the next line.
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
        """Write the data, waiting for the reader if needed; returns the number of bytes written."""
        written = 0
        while written < len(data):
            try:
                written += os.write(self._fd, data[written:])
            except BlockingIOError:  # another process made the descriptor non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
            except OSError:
                return written
        return written


class LineStream(io.TextIOBase):
    """A text stream over a LineWriter that replaces ``sys.stdout`` or ``sys.stderr``."""

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
        """Queue an incomplete line; does not wait."""
        begun, self._begun = self._begun, ""
        if begun:
            self._writer.put(begun)

"""Writing lines to a file descriptor that is slow, full, broken or closed."""

import errno
import fcntl
import os
import threading
from collections.abc import Callable

import pytest

from edgesim.line_writer import LineStream, LineWriter

SECONDS = 20.0


def report(lines: int) -> str:
    return f"<{lines} dropped>\n"


class Faulty:
    """An ``os.write`` that fails with ``error`` after ``left`` more bytes."""

    def __init__(self, error: int, left: int) -> None:
        self.error = error
        self.left = left
        self.written = b""

    def __call__(self, fd: int, data: bytes) -> int:
        if not self.left:
            raise OSError(self.error, os.strerror(self.error))
        part = data[: self.left]
        self.left -= len(part)
        self.written += part
        return len(part)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], Faulty]:
    def install(error: int, left: int) -> Faulty:
        fault = Faulty(error, left)
        monkeypatch.setattr("edgesim.line_writer.os.write", fault)
        return fault

    return install


def read_until(fd: int, text: bytes) -> bytes:
    found = b""
    while text not in found:
        found += os.read(fd, 1 << 16)
    return found


def test_lines_arrive_in_order():
    """Lines of one thread are written in order."""
    ours, theirs = os.pipe()
    writer = LineWriter(theirs, report)
    lines = [f"line {number}\n" for number in range(5000)]

    def put_all() -> None:
        for line in lines:
            writer.put(line)

    threading.Thread(target=put_all).start()
    assert read_until(ours, b"line 4999\n").decode() == "".join(lines)
    assert writer.dropped == 0


def test_a_reader_that_does_not_read_holds_nobody_up():
    """With a full pipe and queue, lines are dropped without blocking; the loss is reported."""
    ours, theirs = os.pipe()
    writer = LineWriter(theirs, report, queue_bytes_max=1 << 16)
    line = "x" * 99 + "\n"
    kept = -1  # the last one is dropped
    while not writer.dropped:
        writer.put(line)
        kept += 1
    text = b""
    while len(text) < kept * len(line) + len(report(1)):
        writer.flush(0)  # reports the number of dropped lines, once the queue is empty
        text += os.read(ours, 1 << 16)
    assert text.count(report(1).encode()) == 1
    assert text.replace(report(1).encode(), b"") == line.encode() * kept
    assert writer.dropped == 1


@pytest.mark.parametrize("error", [errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF])
def test_lines_that_cannot_be_written_are_counted(faulty, error):
    """A failed write drops its lines; the next successful write begins with their number."""
    fault = faulty(error, 0)
    writer = LineWriter(99, report)
    for number in range(3):
        writer.put(f"lost {number}\n")
        writer.flush(SECONDS)
    assert writer.dropped == 3
    fault.left = 1000
    writer.put("again\n")
    writer.flush(SECONDS)
    assert fault.written == b"<3 dropped>\nagain\n"
    assert writer.dropped == 3


def test_a_line_that_was_cut_off_is_ended(faulty):
    """After a write that ended within a line, the next output begins on a new line."""
    fault = faulty(errno.ENOSPC, 7)
    writer = LineWriter(99, report)
    writer.put("whole\n")
    writer.put("stump\n")
    writer.flush(SECONDS)
    fault.left = 1000
    writer.put("next\n")
    writer.flush(SECONDS)
    assert fault.written == b"whole\ns\n<1 dropped>\nnext\n"


def test_the_end_says_what_was_dropped(faulty):
    """A flush without a further line writes the number of dropped lines."""
    fault = faulty(errno.ENOSPC, 0)
    writer = LineWriter(99, report)
    writer.put("lost\n")
    writer.flush(SECONDS)
    fault.left = 1000
    writer.flush(SECONDS)
    assert fault.written == b"<1 dropped>\n"


def test_a_non_blocking_descriptor_is_waited_for():
    """No line is lost on a pipe that another process made non-blocking."""
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETFL, os.O_NONBLOCK)
    writer = LineWriter(theirs, report)
    lines = "".join(f"line {number:06}\n" for number in range(20_000))
    writer.put(lines)
    assert read_until(ours, b"line 019999\n").decode() == lines
    assert writer.dropped == 0


def test_half_a_character_is_escaped():
    """A lone surrogate is written as an escape."""
    ours, theirs = os.pipe()
    LineWriter(theirs, report).put("a\ud800b\n")
    assert read_until(ours, b"\n") == b"a\\ud800b\n"


def test_a_stream_writes_whole_lines_and_what_is_flushed():
    """Text is written at the end of its line, or at a flush."""
    ours, theirs = os.pipe()
    stream = LineStream(theirs, LineWriter(theirs, report))
    print("one", "two", file=stream)
    print("50 %\r", end="", file=stream, flush=True)
    print("end", file=stream)
    assert read_until(ours, b"end\n") == b"one two\n50 %\rend\n"

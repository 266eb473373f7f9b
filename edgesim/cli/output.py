"""Standard output of a command: broken pipes, full disks and closed file descriptors."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import sys
from contextlib import suppress
from typing import TextIO

from edgesim import line_writer
from edgesim.errors import RunError

_LONG_WORD = re.compile(r"\S{300,}")


def open_descriptors() -> None:
    """Open /dev/null in place of closed standard file descriptors.

    Otherwise the next opened file, for example a database, would get the number of standard output.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # open() takes the lowest free number, which is fd
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):  # paths may have any bytes
        sys.stdout.reconfigure(errors="surrogateescape")


def end_if_nobody_reads(error: BaseException) -> None:
    """Exit by SIGPIPE if ``error`` is a broken pipe on standard output or standard error."""
    if isinstance(error, BrokenPipeError) and (_is_broken(1) or _is_broken(2)):
        _end_by_sigpipe()


def exit_if_nobody_reads() -> None:
    """Exit by SIGPIPE if standard output is a pipe whose reader has gone."""
    if _is_broken(1):
        _end_by_sigpipe()


def cannot_print() -> bool:
    """True if standard output cannot be written, as on a full disk."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def complain(text: str) -> None:
    """Print an error on stderr; ignore a write error, which could not be reported.

    The text may contain values of the user: control characters are escaped, and a value of
    hundreds of characters is cut so that the rest remains visible.
    """
    shown = "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in text
    )
    shown = _LONG_WORD.sub(lambda word: f"{word[0][:100]}...{word[0][-50:]}", shown)
    with suppress(OSError):
        print(shown, file=sys.stderr, flush=True)


def finish() -> None:
    """Flush stdout and stderr; raise SystemExit(3) if stdout cannot be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        end_if_nobody_reads(error)
        _discard(sys.stdout)
        complain(f"edgesim: cannot write to standard output: {error.strerror}")
        raise SystemExit(RunError.exit_code) from None
    finally:
        try:
            sys.stderr.flush()
        except OSError:
            _discard(sys.stderr)


def _end_by_sigpipe() -> None:
    line_writer.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)


def _discard(stream: TextIO) -> None:
    """Redirect the stream to /dev/null: a failing flush at exit would print a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_broken(fd: int) -> bool:
    """True if the file descriptor is a pipe or socket without a reader."""
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))

"""The output of a workerd process: it goes to the log, and says why workerd does not start."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from edgesim.foreign import STDERR_CHARS_MAX, STDERR_LINES_MAX
from edgesim.isolates.javascript.inspector import SERVICE

_KEPT = 20
_SERVICE = re.compile(rf"service {SERVICE}: (.+)")
_NOISE = re.compile(
    r"^(stack: |/.+@0x[0-9a-f]+ |\[\d+:0x|<---|\*\*\* Received signal|$)"
    r"|error: Uncaught exception: "
)
"""Addresses and statistics of a crash, and exceptions that the invocation's own outcome has."""
_DATE = re.compile(r"newest date supported by this server binary")
_READ_SECONDS = 2.0

log = structlog.get_logger()


class Stderr:
    """The lines of one process: the last ones are kept, the useful ones logged."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self._shown = 0
        self._changed = threading.Event()

    @contextmanager
    def pipe(self) -> Iterator[int]:
        """A file descriptor for the process to write to; it has its own copy afterwards."""
        ours, theirs = os.pipe()
        name = f"stderr of {self._worker}"
        threading.Thread(target=self._read, args=(ours,), name=name, daemon=True).start()
        try:
            yield theirs
        finally:
            os.close(theirs)

    def error(self) -> str | None:
        """The reason that workerd gives for not starting the Worker, in one line."""
        for line in list(self._lines):
            match = _SERVICE.search(line)
            if match is not None:
                newer = _DATE.search(line) is not None
                cure = (
                    "; install a newer one: npm install --save-dev workerd@latest" if newer else ""
                )
                return match[1].rstrip(".") + cure
        return next((line for line in list(self._lines) if line.strip()), None)

    @property
    def out_of_memory(self) -> bool:
        """True if V8 ended the process at the limit of its heap."""
        return any("heap out of memory" in line for line in list(self._lines))

    def _read(self, fd: int) -> None:
        with open(fd, encoding="utf-8", errors="backslashreplace") as lines:
            while line := lines.readline(STDERR_CHARS_MAX):
                text = line.rstrip("\n")
                self._lines.append(text)
                if _NOISE.search(text) is None and self._shown < STDERR_LINES_MAX:
                    self._shown += 1
                    log.warning("workerd", worker=self._worker, text=text)

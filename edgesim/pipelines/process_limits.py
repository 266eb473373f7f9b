"""Limits of the SQL and Iceberg processes: CPU time and memory of a request.

A request that exceeds a limit ends the process, since nothing else stops DataFusion and pyarrow.
The platform reads the reason from the exit status, and starts another process.

Linux refuses memory beyond the limit.  Elsewhere a thread watches the peak of the process, which
works while the library leaves Python's lock to others.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgesim.system import LINUX, peak_memory_bytes

OUT_OF_MEMORY = 3
"""Exit status of a process that cannot get memory."""
HANG_FACTOR = 60
"""A request that takes this multiple of its CPU time by the clock is a fault of the library."""
_HANG_SECONDS_MIN = 60
_WATCH_SECONDS = 0.02
_PAGE_BYTES = resource.getpagesize()


def end_for_memory() -> None:
    """End the process so that the platform sees the reason."""
    os._exit(OUT_OF_MEMORY)


class ProcessLimits:
    """``memory_bytes`` is what a request may need beyond what the process has."""

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self._most_bytes: int | None = None
        """Peak at which the thread ends the process, once it is watched."""

    @contextmanager
    def of_a_request(self, seconds: float) -> Iterator[None]:
        """Limit CPU time and memory; the signals' default is the end of the process."""
        hang = max(HANG_FACTOR * seconds, _HANG_SECONDS_MIN)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if LINUX:
            resource.setrlimit(resource.RLIMIT_DATA, (self._data_bytes() + self.memory_bytes, hard))
        elif self._most_bytes is None:
            # The peak never falls, so the first request's beginning counts for all of them.
            self._most_bytes = _peak_bytes() + self.memory_bytes
            threading.Thread(target=self._watch, args=(self._most_bytes,), daemon=True).start()
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, hang)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))

    def _data_bytes(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[5]) * _PAGE_BYTES

    @staticmethod
    def _watch(most_bytes: int) -> None:
        pause = threading.Event()
        while not pause.wait(_WATCH_SECONDS):
            if _peak_bytes() > most_bytes:
                end_for_memory()


def _peak_bytes() -> int:
    return peak_memory_bytes(resource.getrusage(resource.RUSAGE_SELF))

"""Limits of the SQL and Iceberg processes: CPU time and memory of a request.

A request that exceeds a limit ends the process, since nothing else stops DataFusion and pyarrow.
The platform reads the reason from the exit status, and starts another process.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgesim.system import LINUX

OUT_OF_MEMORY = 3
"""Exit status of a process that cannot get memory."""
HANG_FACTOR = 60
"""A request that takes this multiple of its CPU time by the clock is a fault of the library."""
_HANG_SECONDS_MIN = 60
_PAGE_BYTES = resource.getpagesize()


def end_for_memory() -> None:
    """End the process so that the platform sees the reason."""
    os._exit(OUT_OF_MEMORY)


class ProcessLimits:
    """``memory_bytes`` is what a request may need beyond what the process has."""

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes

    @contextmanager
    def of_a_request(self, seconds: float) -> Iterator[None]:
        """Limit CPU time and memory; the signals' default is the end of the process."""
        hang = max(HANG_FACTOR * seconds, _HANG_SECONDS_MIN)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if LINUX:
            resource.setrlimit(resource.RLIMIT_DATA, (self._data_bytes() + self.memory_bytes, hard))
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

"""Limits of the SQL process: CPU time and memory of a batch.

A batch that exceeds a limit ends the process, since nothing else stops DataFusion.  The platform
then starts another one, with less of the rows.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgesim.pipelines.sql.wire import OUT_OF_MEMORY
from edgesim.system import LINUX

HANG_FACTOR = 60
"""A batch that takes this multiple of its CPU time by the clock is a fault of the engine."""
_ENGINE_SECONDS_MIN = 60
_PAGE_BYTES = resource.getpagesize()


def end_for_memory() -> None:
    """End the process so that the platform sees the reason."""
    os._exit(OUT_OF_MEMORY)


class ProcessLimits:
    """``memory_bytes`` is what a batch may need beyond what the process has."""

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes

    @contextmanager
    def of_a_batch(self, seconds: float) -> Iterator[None]:
        """Limit CPU time and memory; the signals' default is the end of the process."""
        hang = max(HANG_FACTOR * seconds, _ENGINE_SECONDS_MIN)
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

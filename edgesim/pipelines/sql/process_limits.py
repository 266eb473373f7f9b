"""Confinement of the SQL process: files and system calls for good, CPU time and memory by batch.

A batch that exceeds a limit ends the process, since nothing else stops DataFusion.  The platform
then starts another one, with less of the rows.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgesim.jail import landlock, seccomp
from edgesim.pipelines.sql.wire import OUT_OF_MEMORY
from edgesim.system import LINUX

FILES_MAX = 256
HANG_FACTOR = 60
"""A batch that takes this multiple of its CPU time by the clock is a fault of the engine."""
_ENGINE_SECONDS_MIN = 60
_SYSTEM = [
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"),
    *("/etc/localtime", "/usr/share/zoneinfo", "/dev/urandom", "/sys/devices/system/cpu"),
]
_PAGE_BYTES = resource.getpagesize()
_SOURCES = Path(__file__).parents[3]
"""The folder that has the package ``edgesim``."""


def confine(scratch: str) -> None:
    """Leave the process its libraries to read and ``scratch`` to write; no network, no child.

    Call it before a library starts a thread: Landlock and seccomp hold the calling thread and those
    that it starts.
    """
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, FILES_MAX)):
        resource.setrlimit(limit, (value, value))
    libraries = [each for each in sys.path if "site-packages" in each]
    libraries += [f"{sys.base_prefix}/lib", str(_SOURCES / "edgesim")]
    landlock.restrict([*libraries, *_SYSTEM, f"/proc/{os.getpid()}"], [scratch, "/dev/null"])
    if seccomp.available():
        seccomp.sql_program().put_on()


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

"""CPU time of another process from its CPU clock: /proc counts in ticks of 10 ms."""

from __future__ import annotations

import time

from edgesim.system import LINUX

_SCHEDULED = 2
"""The kind of CPU clock that counts every nanosecond (CPUCLOCK_SCHED of the Linux kernel)."""


def cpu_seconds(pid: int | None) -> float | None:
    """CPU time of the process; None if it has ended or the system has no such clocks.

    It is exact for a process that waits, and up to one tick late for one that runs.
    """
    if pid is None or not LINUX:
        return None
    try:
        return time.clock_gettime(~pid << 3 | _SCHEDULED)
    except OSError:
        return None

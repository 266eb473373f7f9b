"""Resource usage of the platform's process and its isolates, read on request.

Memory, files and child processes come from /proc, so they are left out where there is none.

Names without the prefix ``edgesim_`` are those of Prometheus' own clients.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from edgesim.dev.metrics import MetricFamily, Sample
from edgesim.system import LINUX

_MEMORY = MetricFamily(
    "process_resident_memory_bytes", "gauge", "Memory of the platform's process."
)
_CPU = MetricFamily("process_cpu_seconds_total", "counter", "CPU time of the platform's process.")
_FILES = MetricFamily("process_open_fds", "gauge", "Open files of the platform's process.")
_CHILDREN = MetricFamily("edgesim_child_processes", "gauge", "Isolates, and the embedded engine.")
_CHILDREN_MEMORY = MetricFamily(
    "edgesim_child_resident_memory_bytes",
    "gauge",
    "Their memory; what forks share counts for each.",
)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def samples() -> Iterator[Sample]:
    """Memory, CPU and open files of this process; number and memory of its descendants."""
    times = os.times()
    yield Sample(_CPU, {}, times.user + times.system)
    if not LINUX:
        return
    own = Path("/proc/self")
    yield Sample(_MEMORY, {}, _resident(own))
    yield Sample(_FILES, {}, len(list((own / "fd").iterdir())))
    below = [*_below(own)]
    yield Sample(_CHILDREN, {}, len(below))
    memory = sum(_resident(each) for each in below)
    yield Sample(_CHILDREN_MEMORY, {}, memory)


def _below(process: Path) -> Iterator[Path]:
    with suppress(OSError):  # a process that has just exited
        for thread in (process / "task").iterdir():
            for pid in (thread / "children").read_text().split():
                child = Path("/proc", pid)
                yield child
                yield from _below(child)


def _resident(process: Path) -> int:
    try:
        return int((process / "statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:  # as above
        return 0

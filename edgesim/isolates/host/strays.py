"""Stray processes, started by a Worker's module during its import: found and killed here.

A zygote may fork, so during the import the module can fork too, by system calls past Python's
guard.  Such processes are descendants of the zygote (``edgesim.jail.family``) and are found in
/proc.  Systems other than Linux have no /proc; there strays are killed with the zygote's process
group (``edgesim.jail.lifeline``).
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from edgesim.system import LINUX

ROUNDS_MAX = 100


def strays(zygote: int) -> list[int]:
    """Return the strays of a zygote that has not forked an isolate yet, as process ids."""
    found = []
    for child in _children(zygote):
        below = _descendants(child)
        found += below if _is_first_of_namespace(child) else [child, *below]
    return found


def end_strays(zygote: int) -> None:
    """Kill all descendants, also those forked meanwhile; the zygote itself continues."""
    for _ in range(ROUNDS_MAX):
        left = [pid for pid in strays(zygote) if not _has_ended(pid)]
        if not left:
            return
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    found = []
    for child in _children(pid):
        found += [child, *_descendants(child)]
    return found


def _children(pid: int) -> list[int]:
    if not LINUX:
        return []
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123 (a /proc file)
            return [int(each) for each in file.read().split()]
    except OSError:
        return []  # the process has exited


def _status(pid: int, name: str) -> list[str]:
    try:
        with open(f"/proc/{pid}/status") as file:  # noqa: PTH123 (a /proc file)
            for line in file:
                if line.startswith(f"{name}:"):
                    return line.split()[1:]
    except OSError:
        pass  # the process has exited
    return []


def _has_ended(pid: int) -> bool:
    return _status(pid, "State")[:1] in ([], ["Z"], ["X"])


def _is_first_of_namespace(pid: int) -> bool:
    """Return True for the helper of the zygote's family, which existed before the import."""
    ids = _status(pid, "NSpid")
    return len(ids) > 1 and ids[-1] == "1"

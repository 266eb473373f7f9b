"""Processes that a Worker's module starts while it is imported: found and ended by the platform.

A zygote may fork, so its module can, past Python, before there is an isolate.  Whatever it forks
belongs to the zygote (``edgesim.jail.family``) and is found here by the kernel's own account.
Without Linux it is not found here; it ends with the zygote's process group
(``edgesim.jail.lifeline``).
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from edgesim.system import LINUX

ROUNDS_MAX = 100


def strays(zygote: int) -> list[int]:
    """Descendants of a zygote that has been asked for no fork yet."""
    found = []
    for child in _children(zygote):
        below = _descendants(child)
        found += below if _is_first_of_namespace(child) else [child, *below]
    return found


def end_strays(zygote: int) -> None:
    """End every descendant, also those that are born meanwhile; the zygote itself stays."""
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
        return []  # it has ended


def _status(pid: int, name: str) -> list[str]:
    try:
        with open(f"/proc/{pid}/status") as file:  # noqa: PTH123 (a /proc file)
            for line in file:
                if line.startswith(f"{name}:"):
                    return line.split()[1:]
    except OSError:
        pass  # it has ended
    return []


def _has_ended(pid: int) -> bool:
    return _status(pid, "State")[:1] in ([], ["Z"], ["X"])


def _is_first_of_namespace(pid: int) -> bool:
    """It is the helper of the zygote's family, which was there before the import."""
    ids = _status(pid, "NSpid")
    return len(ids) > 1 and ids[-1] == "1"

"""CPU time of a server's processes, user and system, from /proc."""

import os
import time
from pathlib import Path

from tests.processes import descendants

_TICKS = os.sysconf("SC_CLK_TCK")
_ROLES = {"guest.zygote": "isolates", "workerd": "workerd", "chdb": "clickhouse"}
"""Part of a process's command line -> its role."""


def by_role(root):
    """Return the CPU seconds spent so far by the process and its descendants, by their role."""
    found: dict[str, float] = {}
    for pid in [root, *descendants(root)]:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks = sum(map(int, fields[11:15]))  # its own, and those of children it has waited for
        role = _role(pid, command, root)
        found[role] = found.get(role, 0.0) + ticks / _TICKS
    return found


def _role(pid, command, root):
    for mark, role in (
        ("guest.zygote", "isolates"),
        ("workerd", "workerd"),
        ("chdb", "clickhouse"),
    ):
        if mark in command:
            return role
    return "front" if pid == root else "others"


def settled(root, pause=0.2, idle=0.1):
    """Return ``by_role`` once the processes have become idle: background work ends first."""
    before = by_role(root)
    for _ in range(50):
        time.sleep(pause)
        now = by_role(root)
        if sum(now.values()) - sum(before.values()) < idle * pause:
            return now
        before = now
    return before

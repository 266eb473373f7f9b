"""Confinement of the processes that run libraries on records: SQL and Iceberg."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from edgesim.jail import landlock, seccomp

FILES_MAX = 256
_SYSTEM = [
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"),
    *("/etc/localtime", "/usr/share/zoneinfo", "/dev/urandom", "/sys/devices/system/cpu"),
]
_SOURCES = Path(__file__).parents[2]
"""The folder that has the package ``edgesim``."""


def confine(*, readable: str | None = None, writable: str | None = None) -> None:
    """Leave the process its libraries and two folders; no network, no child.

    Call it before a library starts a thread: Landlock and seccomp hold the calling thread and those
    that it starts.
    """
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, FILES_MAX)):
        resource.setrlimit(limit, (value, value))
    libraries = [each for each in sys.path if "site-packages" in each]
    libraries += [f"{sys.base_prefix}/lib", str(_SOURCES / "edgesim")]
    read = [*libraries, *_SYSTEM, f"/proc/{os.getpid()}", *([readable] if readable else [])]
    landlock.restrict(read, ["/dev/null", *([writable] if writable else [])])
    if seccomp.available():
        seccomp.sql_program().put_on()

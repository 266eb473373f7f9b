"""Features of the operating system: those that only Linux has, and their replacements elsewhere.

``LINUX`` decides every use of a Linux feature; no other module tests for the operating system.
With EDGESIM_PORTABLE=1 it is false on Linux too, so the code for macOS can be tested there
(``make portable``).  Nothing here imports the rest of edgesim, because isolates load it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import sys

VARIABLE = "EDGESIM_PORTABLE"
IS_PORTABLE = os.environ.get(VARIABLE, "") not in {"", "0"}
"""True if the features of Linux are to be left unused."""
LINUX = sys.platform == "linux" and not IS_PORTABLE
"""True if /proc, prctl, Landlock, seccomp, memfd, PID namespaces and the like may be used."""
INHERITED = {VARIABLE: "1"} if IS_PORTABLE else {}
"""Environment variables by which a child process gets the same answer."""

_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
_HAS_NO_FULL_SYNC = {errno.ENOTSUP, errno.EINVAL, errno.ENOTTY}
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


def sync_file(descriptor: int) -> None:
    """Write an open file's content to disk; OSError if that fails."""
    if LINUX:
        os.fdatasync(descriptor)
    else:
        sync(descriptor)


def sync(descriptor: int) -> None:
    """Write an open file or folder with its metadata to disk; OSError if that fails.

    On macOS fsync leaves the data in the drive's cache, which F_FULLFSYNC empties.
    """
    if _FULL_SYNC is not None:
        try:
            fcntl.fcntl(descriptor, _FULL_SYNC)
        except OSError as error:  # a network drive, for example
            if error.errno not in _HAS_NO_FULL_SYNC:
                raise
        else:
            return
    os.fsync(descriptor)


def peak_memory_bytes(usage: resource.struct_rusage) -> int:
    """Return the peak memory of a process in bytes."""
    return usage.ru_maxrss * _MAXRSS_BYTES

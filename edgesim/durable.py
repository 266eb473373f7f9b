"""What is to survive a power cut, written through to the disk.

In virtual time nothing is waited for: a replay's machine does not lose power, only its platform is
killed, and for that it is enough that the kernel has the bytes.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgesim.foreign import stops_the_world


def flush(descriptor: int) -> None:
    """The bytes of an open file."""
    if not stops_the_world():
        os.fdatasync(descriptor)


def flush_folder(folder: Path) -> None:
    """Which names a folder has."""
    if stops_the_world():
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sqlite_pragma() -> str:
    """How SQLite is told the same."""
    return f"PRAGMA synchronous = {'OFF' if stops_the_world() else 'FULL'}"

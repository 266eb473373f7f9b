"""Durable files: the calls by which a driver on this machine makes data survive a power cut.

A replay puts a simulated disk (``Disk``) behind these calls, one that loses what was not flushed.
Without one, virtual time flushes nothing: a killed process needs only the kernel to have the bytes.
"""

from __future__ import annotations

import os
import sqlite3
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

from edgesim.foreign import simulated_disk, stops_the_world


class Disk(Protocol):
    """A simulated disk.  Every call may raise OSError (sqlite3.Error where SQLite would)."""

    def write(self, file: FileIO, data: bytes | memoryview) -> int | None:
        """As ``file.write``."""

    def flush(self, descriptor: int) -> None:
        """Make the content of an open file durable."""

    def flush_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""

    def remove(self, path: Path) -> None:
        """Unlink a file; FileNotFoundError if there is none."""

    def connect(self, path: str, **options: Any) -> sqlite3.Connection:
        """As ``sqlite3.connect``."""


def write(file: FileIO, data: bytes | memoryview) -> None:
    """Write all of ``data`` to an unbuffered file; OSError if that fails, maybe after a part."""
    disk = _simulated()
    rest = memoryview(data)
    while rest:
        written = file.write(rest) if disk is None else disk.write(file, rest)
        rest = rest[written:]


def flush(descriptor: int) -> None:
    """Make the content of an open file durable."""
    if (disk := _simulated()) is not None:
        disk.flush(descriptor)
    elif not stops_the_world():
        os.fdatasync(descriptor)


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable: files created, renamed, removed."""
    if (disk := _simulated()) is not None:
        disk.flush_folder(folder)
    elif not stops_the_world():
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder with its parents, all of them durable; nothing if it is there."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        flush_folder(each.parent)
    folder.mkdir(exist_ok=True)  # FileExistsError for a file of that name


def remove(path: Path) -> None:
    """Unlink a file, if it is there; a power cut may bring it back until its folder is flushed."""
    disk = _simulated()
    try:
        if disk is None:
            path.unlink()
        else:
            disk.remove(path)
    except FileNotFoundError:
        pass


def connect(path: str | Path, **options: Any) -> sqlite3.Connection:
    """A SQLite connection; ``options`` as ``sqlite3.connect`` has them.  See ``sqlite_pragma``."""
    disk = _simulated()
    if disk is None or str(path) == ":memory:":
        connection: sqlite3.Connection = sqlite3.connect(path, **options)
        return connection
    return disk.connect(str(path), **options)


def sqlite_pragma() -> str:
    """The statement after which every commit of a SQLite connection is durable."""
    skip = _simulated() is None and stops_the_world()
    return f"PRAGMA synchronous = {'OFF' if skip else 'FULL'}"


def _simulated() -> Disk | None:
    disk: Disk | None = simulated_disk()
    return disk

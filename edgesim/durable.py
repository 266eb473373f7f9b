"""File operations that an acknowledgement depends on.

Every durable write of edgesim uses these functions, so a replay can substitute a simulated disk
(``Disk``) that loses unflushed data.  On a virtual event loop without such a disk nothing is
synced: a replay kills the platform, not the machine, and the kernel keeps the bytes.
"""

from __future__ import annotations

import os
import sqlite3
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

from edgesim import system
from edgesim.errors import RunError
from edgesim.foreign import simulated_disk, stops_the_world

Identity = tuple[int, int]
"""Device and inode number: equal for two paths of one file."""
_FAILED_SYNCS = {"SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC"}


class Disk(Protocol):
    """A simulated disk.  Every call may raise OSError (sqlite3.Error where SQLite would)."""

    def write(self, file: FileIO, data: bytes | memoryview) -> int | None:
        """Like ``file.write``."""

    def write_at(self, descriptor: int, path: Path, data: bytes | memoryview, offset: int) -> int:
        """Like ``os.pwrite``, to the open file of that path."""

    def flush(self, descriptor: int, path: Path) -> None:
        """Make the content of the open file of that path durable."""

    def flush_folder(self, folder: Path) -> None:
        """Make the directory entries of a folder durable."""

    def remove(self, path: Path) -> None:
        """Unlink a file; FileNotFoundError if there is none."""

    def connect(self, path: str, **options: Any) -> sqlite3.Connection:
        """Like ``sqlite3.connect``."""


def create(path: Path) -> int:
    """Create a file, open it for reading and writing, and return its file descriptor.

    FileExistsError if it exists.  Its name is durable after ``flush_folder``.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)


def open_existing(path: Path) -> int:
    """Open a file for reading and writing, and return its file descriptor."""
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def write(file: FileIO, data: bytes | memoryview) -> None:
    """Write all of ``data`` to an unbuffered file; OSError if that fails, maybe after a part."""
    disk = _simulated()
    rest = memoryview(data)
    while rest:
        written = file.write(rest) if disk is None else disk.write(file, rest)
        rest = rest[written:]


def write_at(descriptor: int, path: Path, data: bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``; OSError if that fails, maybe after a part."""
    disk = _simulated()
    rest = memoryview(data)
    while rest:
        if disk is None:
            written = os.pwrite(descriptor, rest, offset)
        else:
            written = disk.write_at(descriptor, path, rest, offset)
        rest, offset = rest[written:], offset + written


def read_at(descriptor: int, length: int, offset: int) -> bytes:
    """Up to ``length`` bytes at ``offset``; fewer only at the end of the file."""
    pieces = []
    while length and (piece := os.pread(descriptor, length, offset)):
        pieces.append(piece)
        length, offset = length - len(piece), offset + len(piece)
    return b"".join(pieces)


def truncate(descriptor: int, length: int) -> None:
    """Truncate the file to ``length`` bytes; durable after ``flush``."""
    os.ftruncate(descriptor, length)


def flush(descriptor: int, path: Path) -> None:
    """Sync the contents of the open file of that path.

    After an OSError the file is suspect: the kernel may have dropped the data that it could not
    write, and a second call would succeed without having written it.
    """
    if (disk := _simulated()) is not None:
        disk.flush(descriptor, path)
    elif not stops_the_world():
        system.sync_file(descriptor)


def flush_folder(folder: Path) -> None:
    """Sync the directory entries of a folder."""
    if (disk := _simulated()) is not None:
        disk.flush_folder(folder)
    if stops_the_world():
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        system.sync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder with its parents, all of them durable.

    Also syncs an existing folder: its creator may have crashed before its name was on disk.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)  # FileExistsError for a file of that name
    for each in (folder, *folder.parents):
        if not _may_be_new(each):
            return
        flush_folder(each.parent)


def _may_be_new(folder: Path) -> bool:
    """True if an edgesim may have created it, unlike a mount point or a system folder."""
    return not folder.is_mount() and os.access(folder.parent, os.R_OK | os.W_OK)


def write_file(path: Path, data: bytes) -> None:
    """Write a file, durable with its name; atomically replaces an existing one."""
    new = path.with_name(f"{path.name}.new")
    remove(new)
    descriptor = create(new)
    try:
        write_at(descriptor, new, data, 0)
        flush(descriptor, new)
    finally:
        os.close(descriptor)
    rename(new, path)


def rename(old: Path, new: Path) -> None:
    """Rename a file within its folder, durably."""
    old.replace(new)
    flush_folder(new.parent)


def remove(path: Path) -> None:
    """Unlink a file, if it exists; a power cut may restore it until its folder is flushed."""
    if (disk := _simulated()) is None:
        path.unlink(missing_ok=True)
    elif path.exists():
        disk.remove(path)


def connect(path: str | Path, **options: Any) -> sqlite3.Connection:
    """A SQLite connection; ``options`` are those of ``sqlite3.connect``.  See ``sqlite_pragma``."""
    if (disk := _simulated()) is not None and str(path) != ":memory:":
        return disk.connect(str(path), **options)
    connection: sqlite3.Connection = sqlite3.connect(path, **options)
    connection.execute("PRAGMA fullfsync = ON")  # macOS: see system.sync
    return connection


def identity(path: Path) -> Identity | None:
    """The identity of the file at ``path``; None if it cannot be read."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_in_place(path: Path, expected: Identity | None) -> None:
    """RunError if ``path`` no longer leads to the file or folder that was opened there.

    Data in a deleted file is lost when the process exits, so it must not be acknowledged.
    """
    if identity(path) != expected:
        raise RunError(
            f"{path} was deleted or replaced while edgesim was running", "restart edgesim"
        )


def sqlite_pragma() -> str:
    """The SQLite statement with the same effect on a database in WAL mode."""
    skip = _simulated() is None and stops_the_world()
    return f"PRAGMA synchronous = {'OFF' if skip else 'FULL'}"


def is_failed_sync(error: BaseException | None) -> bool:
    """True if SQLite could not sync a file, which is suspect from then on; see ``flush``."""
    return getattr(error, "sqlite_errorname", "") in _FAILED_SYNCS


def _simulated() -> Disk | None:
    disk: Disk | None = simulated_disk()
    return disk

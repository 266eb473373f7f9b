"""A simulated disk: calls fail by the fault rules, and a power cut loses unflushed data.

``medium`` keeps the durable content. SQLite is trusted with its own files: a commit with
``synchronous = FULL`` is durable, any other may be lost.

A kill and a power cut take an image immediately, which ``restore`` writes back before the next
start, so that file operations of the stopped platform run have no effect.

Durable content is kept in memory. Not simulated: reordered writes within SQLite's files, an fsync
that lies to SQLite, writes that land in another file.
"""

from __future__ import annotations

import errno
import os
import random
import sqlite3
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from edgesim import durable
from edgesim.faults.injector import Injector, KilledError
from edgesim.replay.faults.connection import FaultyConnection
from edgesim.replay.faults.medium import Image, Medium, read_database


class SimulatedDisk:
    """The disk under the folders and files of ``areas`` (path -> fault target)."""

    def __init__(self, areas: Mapping[Path, str], injector: Injector, seed: int) -> None:
        self.failures = 0
        """Errors injected in this platform run."""
        self._areas = areas
        self._injector = injector
        self._chance = random.Random(f"disk {seed}")
        tops = [top for top in areas if not any(each in top.parents for each in areas)]
        self.medium = Medium(tops, self._chance)
        self._databases: dict[Path, FaultyConnection] = {}
        self._image: Image | None = None

    # --- the calls of drivers (see durable.Disk) ---

    def write(self, file: FileIO, data: bytes | memoryview) -> int | None:
        """See Disk; a full disk writes a part and raises ENOSPC."""
        self._check()
        path = Path(str(file.name))
        if self._fails("full", path, f"write {path.name}"):
            part = memoryview(data)[: self._chance.randrange(len(data))]
            file.write(part)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written = file.write(data)
        inode = os.fstat(file.fileno()).st_ino
        self.medium.wrote(path, inode, file.tell() - len(data), len(data))
        return written

    def write_at(self, descriptor: int, path: Path, data: bytes | memoryview, offset: int) -> int:
        """See Disk; a full disk behaves as in ``write``."""
        self._check()
        if self._fails("full", path, f"write {path.name}"):
            os.pwrite(descriptor, data[: self._chance.randrange(len(data))], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written = os.pwrite(descriptor, data, offset)
        self.medium.wrote(path, os.fstat(descriptor).st_ino, offset, written)
        return written

    def flush(self, descriptor: int, path: Path) -> None:
        """See Disk."""
        self._check()
        where = f"flush {path.name}"
        inode, data = os.fstat(descriptor).st_ino, path.read_bytes()
        if self._fails("failed-fsync", path, where):
            self.medium.fail_flush(inode, data)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        lie = self._lies_about(path, where)
        self.medium.flush(inode, data, lie=lie)
        if not lie:
            self._injector.step(where)

    def flush_folder(self, folder: Path) -> None:
        """See Disk."""
        self._check()
        is_above = self.medium.is_above(folder)
        if not is_above and not self.medium.has(folder):
            return  # outside the medium, so it counts as durable
        # Folders above the areas may have a different name in each replay.
        where = f"flush {'state' if is_above else folder.name}/"
        if self._fails("failed-fsync", folder, where):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))
        lie = self._lies_about(folder, where)
        self.medium.flush_folder(folder, lie=lie)
        if not lie:
            self._injector.step(where)

    def remove(self, path: Path) -> None:
        """See Disk."""
        self._check()
        inode = path.stat().st_ino
        path.unlink()
        self.medium.removed(path, inode)

    def connect(self, path: str, **options: Any) -> sqlite3.Connection:
        """See Disk."""
        self._check()
        file = Path(path)
        connection = sqlite3.connect(path, factory=FaultyConnection, **options)
        connection.simulate(lambda: read_database(file), lambda: self._commit(file))
        self._databases[file] = connection
        # SQLite flushes the folder when it creates its write-ahead log.
        self.medium.flush_folder(file.parent)
        return connection

    def _commit(self, file: Path) -> Callable[[], None]:
        """Raise an injected error before a commit; return the function to call after the commit."""
        self._check()
        where = f"commit {file.name}"
        if self._fails("full", file, where):
            raise _sqlite_error("database or disk is full", "SQLITE_FULL")
        if self._fails("failed-fsync", file, where):
            raise _sqlite_error("disk I/O error", "SQLITE_IOERR_FSYNC")
        return lambda: self._injector.step(where)

    # --- faults ---

    def _check(self) -> None:
        if self._image is not None:
            raise KilledError("the platform was killed")

    def _targets(self, path: Path) -> set[str]:
        areas = (name for top, name in self._areas.items() if path == top or top in path.parents)
        return {"disk", *areas}

    def _fails(self, kind: str, path: Path, where: str) -> bool:
        if self._injector.strikes(kind, self._targets(path), f"disk {where}") is None:
            return False
        self.failures += 1
        return True

    def _lies_about(self, path: Path, where: str) -> bool:
        return (
            self._injector.strikes("lying-fsync", self._targets(path), f"disk {where}") is not None
        )

    def flip_bit(self, target: str, chance: random.Random) -> str:
        """Flip one bit in one file of a target; return its position, or "" if there is no file."""
        files = sorted(
            path
            for path in self.medium.walk()
            if path.is_file() and path.stat().st_size and target in self._targets(path)
        )
        if not files:
            return ""
        path = chance.choice(files)
        at = chance.randrange(path.stat().st_size)
        self.medium.flip(path, at, 1 << chance.randrange(8))
        return f"{path.name} byte {at}"

    # --- stop and restart ---

    def stop(self, *, power: bool) -> None:
        """Take the image of a kill or power cut; later operations have no effect."""
        if self._image is not None:
            return
        image = self.medium.current()
        self._image = self.medium.cut(image, self._left_of_databases()) if power else image

    def restore(self) -> None:
        """Write the image back, so that a new platform run can begin."""
        image, self._image = self._image, None
        self.failures = 0
        if image is not None:  # otherwise SQLite's files stay unchanged
            self._databases.clear()
            self.medium.replace(image)

    def _left_of_databases(self) -> dict[Path, Image]:
        """SQLite's files after a power cut: current, or as of the last durable commit."""
        left: dict[Path, Image] = {}
        for file, connection in self._databases.items():
            whole = connection.is_durable or self._chance.random() < 0.5
            left[file] = dict(read_database(file) if whole else connection.before)
            left[file].pop(Path(f"{file}-shm"), None)
        return left


def _sqlite_error(message: str, name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorname = name
    error.sqlite_errorcode = getattr(sqlite3, name)
    return error


_: type[durable.Disk] = SimulatedDisk

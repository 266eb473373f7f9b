"""A simulated disk: what was not flushed may be lost at a power cut, in any subset.

Files lie on the real file system, as the running platform sees them.  Beside them this disk keeps
what is durable: the content of each file as of its last flush, and the names of each folder as of
the folder's last flush.  A power cut decides for every difference between the two, by sector and by
name, whether it had reached the disk.  SQLite is trusted with its own files: what its connection
committed with ``synchronous = FULL`` is durable, anything less may be lost.

A kill and a power cut both take an image at once, which ``restore`` puts in place before the next
start: what the dying platform's code still does to its files has no effect.

Durable content is kept in memory.  Not simulated: reordered writes within SQLite's files, an fsync
that lies to SQLite, writes that land in another file.
"""

from __future__ import annotations

import errno
import os
import random
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from edgesim import durable
from edgesim.replay.faults.connection import FaultyConnection
from edgesim.replay.faults.injector import Injector, KilledError

SECTOR_BYTES = 512
PAGE_BYTES = 4096

Image = dict[Path, bytes | None]
"""The content of each file; None for a folder."""


class Content:
    """The durable content of one file, whatever its names are."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.spoilt: dict[int, bytes] = {}
        """Pages that a failed flush dropped: they stay lost until they are written again."""


class SimulatedDisk:
    """The disk under the folders and files of ``areas`` (a fault target for each path).

    What is above them is taken to be durable.
    """

    def __init__(self, areas: Mapping[Path, str], injector: Injector, seed: int) -> None:
        self.failures = 0
        """Errors that were injected in this life of the platform."""
        self.lied = False
        """Whether a power cut took what a flush had promised."""
        self.damaged: dict[Path, int] = {}
        """Lines in the writes that a flipped bit hit, by file."""
        self._areas = areas
        self._tops = [top for top in areas if not any(each in top.parents for each in areas)]
        self._injector = injector
        self._chance = random.Random(f"disk {seed}")
        self._files: dict[int, Content] = {}  # by inode: what is linked now
        self._names: dict[Path, Content | None] = {}  # durable names; None is a folder
        self._databases: dict[Path, FaultyConnection] = {}
        self._writes: dict[Path, list[tuple[int, int]]] = {}
        self._lies = False
        self._image: Image | None = None
        self._adopt()

    # --- the calls of drivers (see durable.Disk) ---

    def write(self, file: FileIO, data: bytes | memoryview) -> int | None:
        """See Disk; a full disk takes a part and refuses the rest."""
        self._check()
        path = Path(str(file.name))
        if self._fails("full", path, f"write {path.name}"):
            part = memoryview(data)[: self._chance.randrange(len(data))]
            file.write(part)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written = file.write(data)
        self._note(path, file.fileno(), file.tell() - len(data), len(data))
        return written

    def write_at(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """See Disk; as ``write``."""
        self._check()
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if self._fails("full", path, f"write {path.name}"):
            os.pwrite(descriptor, data[: self._chance.randrange(len(data))], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written = os.pwrite(descriptor, data, offset)
        self._note(path, descriptor, offset, written)
        return written

    def _note(self, path: Path, descriptor: int, start: int, length: int) -> None:
        """Some bytes were written; pages that a failed flush dropped are dirty again."""
        self._writes.setdefault(path, []).append((start, start + length))
        content = self._content(os.fstat(descriptor).st_ino)
        for page in range(start // PAGE_BYTES, (start + length) // PAGE_BYTES + 1):
            content.spoilt.pop(page, None)

    def flush(self, descriptor: int) -> None:
        """See Disk."""
        self._check()
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        where = f"flush {path.name}"
        content = self._content(os.fstat(descriptor).st_ino)
        data = _read(descriptor)
        if self._fails("failed-fsync", path, where):
            content.spoilt |= _changed_pages(content.data, data)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        if self._lies_about(path, where):
            return
        for page, lost in content.spoilt.items():
            start = page * PAGE_BYTES
            data = data[:start] + lost[: len(data) - start] + data[start + PAGE_BYTES :]
        content.data = data
        self._injector.step(where)

    def flush_folder(self, folder: Path) -> None:
        """See Disk."""
        self._check()
        # What is above the areas may have another name in each replay.
        where = f"flush {folder.name if self._targets(folder)[1] else 'state'}/"
        if self._fails("failed-fsync", folder, where):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))
        if self._lies_about(folder, where):
            return
        self._keep_names(folder)
        self._injector.step(where)

    def remove(self, path: Path) -> None:
        """See Disk."""
        self._check()
        inode = path.stat().st_ino
        path.unlink()
        self._files.pop(inode, None)  # its number may be another file's next
        self._writes.pop(path, None)

    def connect(self, path: str, **options: Any) -> sqlite3.Connection:
        """See Disk."""
        self._check()
        file = Path(path)
        connection = sqlite3.connect(path, factory=FaultyConnection, **options)
        connection.simulate(lambda: _database(file), lambda: self._commit(file))
        self._databases[file] = connection
        # SQLite flushes the folder when it creates its log.
        self._keep_names(file.parent)
        return connection

    def _commit(self, file: Path) -> Callable[[], None]:
        """Before a commit: what may be raised instead of it.  Returns what comes after it."""
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

    def _targets(self, path: Path) -> tuple[str, ...]:
        area = next(
            (name for top, name in self._areas.items() if path == top or top in path.parents), ""
        )
        return ("disk", area)

    def _fails(self, kind: str, path: Path, where: str) -> bool:
        if self._injector.strikes(kind, self._targets(path), f"disk {where}") is None:
            return False
        self.failures += 1
        return True

    def _lies_about(self, path: Path, where: str) -> bool:
        struck = self._injector.strikes("lying-fsync", self._targets(path), f"disk {where}")
        self._lies |= struck is not None
        return struck is not None

    def flip_bit(self, target: str, chance: random.Random) -> str:
        """Flip one bit of one file of a target; its name, empty if there is no file."""
        files = sorted(
            path
            for path in self._walk()
            if path.is_file() and path.stat().st_size and target in self._targets(path)
        )
        if not files:
            return ""
        path = chance.choice(files)
        at = chance.randrange(path.stat().st_size)
        mask = 1 << chance.randrange(8)
        data = path.read_bytes()
        for start, end in self._writes.get(path, []):
            if start <= at < end:
                lines = data[start:end].count(b"\n")
                self.damaged[path] = self.damaged.get(path, 0) + lines
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([data[at] ^ mask]))
        content = self._content(path.stat().st_ino)
        content.data = _flipped(content.data, at, mask)
        return f"{path.name} byte {at}"

    # --- the end of a life ---

    def stop(self, *, power: bool) -> None:
        """Take the image of a kill, or of a power cut; from here on nothing has an effect."""
        if self._image is not None:
            return
        image = self._current()
        self._image = self._cut(image) if power else image

    def restore(self) -> None:
        """Put the image in place; a new life may begin."""
        image, self._image = self._image, None
        self.failures = 0
        self._databases.clear()
        if image is None:
            return
        for path in sorted(self._walk(), reverse=True):
            if path not in image:
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()
        for path in sorted(image):
            data = image[path]
            if data is None:
                path.mkdir(exist_ok=True)
            elif not path.is_file() or path.read_bytes() != data:
                path.write_bytes(data)
        self._adopt()

    def _cut(self, image: Image) -> Image:
        """What of the image a power cut leaves."""
        files = self._of_databases(image)
        kept: Image = {}
        for path in sorted(image.keys() | self._names.keys() | files.keys()):
            if not _has_parent(path, kept, self._tops):
                continue
            if path in files:
                kept[path] = files[path]
            elif (found := self._survivor(path, image)) is not _GONE:
                kept[path] = found
        self.lied |= self._lies
        return kept

    def _survivor(self, path: Path, image: Image) -> Any:
        """Content of the file that has this name after the cut, None for a folder, or _GONE."""
        durable_there = path in self._names
        before = self._names.get(path)
        if path not in image:
            return before and before.data if self._coin() else _GONE  # the removal may be lost
        now = image[path]
        content = None if now is None else self._files.get(path.stat().st_ino)
        if not durable_there:  # the creation may be lost
            if self._coin():
                return _GONE
        elif before is not content and before is not None and self._coin():
            return before.data
        if now is None:
            return None
        return _torn(content.data if content else b"", now, self._chance)

    def _of_databases(self, image: Image) -> Image:
        """SQLite's files: as they are, or as of the last durable commit."""
        files: Image = {}
        for file, connection in self._databases.items():
            names = _names_of(file)
            whole = connection.is_durable or self._coin()
            source = {name: image[name] for name in names if name in image}
            files |= source if whole else connection.before
            for name in names:
                image.pop(name, None)
                self._names.pop(name, None)
        return files

    def _coin(self) -> bool:
        return self._chance.random() < 0.5

    # --- what is there ---

    def _content(self, inode: int) -> Content:
        return self._files.setdefault(inode, Content())

    def _keep_names(self, folder: Path) -> None:
        for path in [each for each in self._names if each.parent == folder]:
            del self._names[path]
        for path in folder.iterdir():
            if not self._is_ours(path):
                continue
            self._names[path] = None if path.is_dir() else self._content(path.stat().st_ino)

    def _is_ours(self, path: Path) -> bool:
        return any(path == top or top in path.parents for top in self._tops)

    def _adopt(self) -> None:
        """All that is there now is durable."""
        self._files.clear()
        self._names.clear()
        for path in self._walk():
            if path.is_dir():
                self._names[path] = None
            else:
                content = self._files[path.stat().st_ino] = Content(path.read_bytes())
                self._names[path] = content

    def _current(self) -> Image:
        return {
            path: None if path.is_dir() else path.read_bytes()
            for path in self._walk()
            if not path.name.endswith("-shm")
        }

    def _walk(self) -> Iterator[Path]:
        """Every file and folder, the tops included; a folder comes before what is in it."""
        waiting = [path for top in self._tops for path in (top, *_names_of(top)[1:])]
        while waiting:
            path = waiting.pop()
            if not path.exists():
                continue
            yield path
            if path.is_dir():
                waiting += path.iterdir()


_GONE = object()


def _has_parent(path: Path, kept: Image, tops: Collection[Path]) -> bool:
    return path.parent in kept or not any(top in path.parents for top in tops)


def _names_of(database: Path) -> list[Path]:
    return [database, Path(f"{database}-wal"), Path(f"{database}-shm"), Path(f"{database}-journal")]


def _database(file: Path) -> Image:
    return {path: path.read_bytes() for path in _names_of(file) if path.is_file()}


def _sqlite_error(message: str, name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorname = name
    error.sqlite_errorcode = getattr(sqlite3, name)
    return error


def _read(descriptor: int) -> bytes:
    """All of an open file, which may be open for writing only."""
    with open(f"/proc/self/fd/{descriptor}", "rb") as file:  # noqa: PTH123 (a /proc file)
        return file.read()


def _changed_pages(old: bytes, new: bytes) -> dict[int, bytes]:
    """The pages of ``new`` that differ, with what they held before."""
    changed = {}
    for page in range(-(-len(new) // PAGE_BYTES)):
        start = page * PAGE_BYTES
        before, now = old[start : start + PAGE_BYTES], new[start : start + PAGE_BYTES]
        if before != now:
            changed[page] = before.ljust(len(now), b"\0")
    return changed


def _flipped(data: bytes, at: int, mask: int) -> bytes:
    if at >= len(data):
        return data
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def _torn(old: bytes, new: bytes, chance: random.Random) -> bytes:
    """Some sectors of the new content and some of the old; its length is one of both or between."""
    if old == new:
        return new
    low, high = sorted((len(old), len(new)))
    length = chance.choice([len(old), len(new), chance.randint(low, high)])
    torn = bytearray(old[:length].ljust(length, b"\0"))
    for start in range(0, min(length, len(new)), SECTOR_BYTES):
        end = min(start + SECTOR_BYTES, length, len(new))
        if torn[start:end] != new[start:end] and chance.random() < 0.5:
            torn[start:end] = new[start:end]
    return bytes(torn)


_: type[durable.Disk] = SimulatedDisk

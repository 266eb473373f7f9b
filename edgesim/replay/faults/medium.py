"""Durable content of a simulated disk, and its state after a power cut.

Files are on the real file system, as the running platform sees them. The durable state is kept
separately: the content of each file at its last flush, and the names in each folder at the folder's
last flush. For every difference between the two, by sector and by name, a power cut decides at
random whether it had reached the disk.

Data that a lying flush reported as durable is tracked separately, so that checks can excuse exactly
the losses caused by the lie.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

SECTOR_BYTES = 512
PAGE_BYTES = 4096

Image = dict[Path, bytes | None]
"""Content by path; None for a folder."""


class Content:
    """Durable content of one file, independent of its names."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.promised = data
        """Content at the last flush that reported success, truthfully or not."""
        self.spoilt: dict[int, bytes] = {}
        """Pages dropped by a failed flush, by number: they stay lost until written again."""


class Medium:
    """The files and folders under ``tops``. Folders above them count as durable."""

    def __init__(self, tops: Collection[Path], chance: random.Random) -> None:
        self.damaged: dict[Path, int] = {}
        """Files that lost data reported as durable -> number of lines in the affected writes."""
        self.lost: set[Path] = set()
        """SQLite files lost because a flush of a folder above them lied."""
        self.cuts: Counter[str] = Counter()
        """Effects of power cuts and how often they occurred."""
        self._tops = tops
        self._chance = chance
        self._files: dict[int, Content] = {}  # by inode: files that are linked now
        self._names: dict[Path, Content | None] = {}  # durable names; None is a folder
        self._promised: dict[Path, Content | None] = {}  # names reported by a lying flush
        self._writes: dict[Path, list[tuple[int, int]]] = {}
        self.adopt()

    # --- writes and flushes ---

    def wrote(self, path: Path, inode: int, start: int, length: int) -> None:
        """Record a write; pages that a failed flush dropped become dirty again."""
        self._writes.setdefault(path, []).append((start, start + length))
        content = self._content(inode)
        for page in range(start // PAGE_BYTES, (start + length) // PAGE_BYTES + 1):
            content.spoilt.pop(page, None)

    def flush(self, inode: int, data: bytes, *, lie: bool) -> None:
        """Record a flush of a file with this content; ``lie``: it only reported success."""
        content = self._content(inode)
        for page, lost in content.spoilt.items():
            start = page * PAGE_BYTES
            data = data[:start] + lost[: len(data) - start] + data[start + PAGE_BYTES :]
        content.promised = data
        if not lie:
            content.data = data

    def fail_flush(self, inode: int, data: bytes) -> None:
        """Record a failed flush: the changed pages are marked clean, but are not on disk."""
        content = self._content(inode)
        content.spoilt |= _changed_pages(content.data, data)

    def flush_folder(self, folder: Path, *, lie: bool = False) -> None:
        """Record a flush of a folder's names; ``lie``: it only reported success."""
        there = {
            path: None if path.is_dir() else self._content(path.stat().st_ino)
            for path in folder.iterdir()
            if self.has(path)
        }
        known = self._promised if lie else self._names
        for names in (known, self._promised):
            for path in [each for each in names if each.parent == folder]:
                del names[path]
        known |= there

    def removed(self, path: Path, inode: int) -> None:
        """Forget an unlinked file, since its inode number may be reused."""
        self._files.pop(inode, None)
        self._writes.pop(path, None)
        self._promised.pop(path, None)

    def flip(self, path: Path, at: int, mask: int) -> None:
        """Flip bits of one byte, in the file and in the durable content."""
        data = path.read_bytes()
        written = self._writes.get(path, [])
        self._charge(path, data, [(start, end) for start, end in written if start <= at < end])
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([data[at] ^ mask]))
        content = self._content(path.stat().st_ino)
        content.data = _flipped(content.data, at, mask)
        content.promised = _flipped(content.promised, at, mask)

    def _charge(self, path: Path, data: bytes, spans: Collection[tuple[int, int]]) -> None:
        lines = sum(data[start:end].count(b"\n") for start, end in spans)
        self.damaged[path] = self.damaged.get(path, 0) + lines

    # --- power cut ---

    def cut(self, image: Image, databases: Mapping[Path, Image]) -> Image:
        """The part of the image that survives a power cut.

        ``databases`` maps each SQLite file to the surviving files of its database; they need their
        folder to survive.
        """
        files: Image = {}
        for database, left in databases.items():
            files |= left
            for path in names_of(database):
                image.pop(path, None)
                self._names.pop(path, None)
        kept: Image = {}
        for path in sorted(image.keys() | self._names.keys() | files.keys()):
            if not self._has_parent(path, kept):
                if path in databases and self._was_lied_about(path):
                    self.lost.add(path)
                continue
            if path in files:
                kept[path] = files[path]
            elif (found := self._survivor(path, image)) is not _GONE:
                kept[path] = found
        self._compare(image, kept)
        return kept

    def _survivor(self, path: Path, image: Image) -> Any:
        """Content of the file with this name after the cut, None for a folder, or _GONE."""
        durable_there = path in self._names
        before = self._names.get(path)
        if path not in image:
            if self._coin():
                self.cuts["removal lost"] += 1
                return before and before.data
            return _GONE
        now = image[path]
        content = None if now is None else self._files.get(path.stat().st_ino)
        if not durable_there:
            if self._coin():
                self.cuts["name lost"] += 1
                return _GONE
        elif before is not content and before is not None and self._coin():
            self.cuts["name lost"] += 1
            return before.data
        if now is None:
            return None
        torn = _torn(content.data if content else b"", now, self._chance)
        if torn != now:
            self.cuts["write torn or lost"] += 1
        return torn

    def _compare(self, image: Image, kept: Image) -> None:
        """Record data lost because of a lying flush; checks do not excuse other losses."""
        for path, now in image.items():
            content = None if now is None else self._files.get(path.stat().st_ino)
            if content is None or (path not in self._names and path not in self._promised):
                continue
            is_lie = self._was_lied_about(path)
            promised, found = content.promised, (kept.get(path) or b"")[: len(content.promised)]
            spans = [
                (start, end)
                for start, end in self._writes.get(path, [])
                if promised[start:end] != found[start:end]
                and (is_lie or promised[start:end] != content.data[start:end])
            ]
            if spans or (is_lie and path not in kept):
                self.cuts["promise broken"] += 1
                self._charge(path, promised, spans)

    def _was_lied_about(self, path: Path) -> bool:
        """True if a lying flush reported this name, or that of a folder above it, as durable."""
        return any(
            each in self._promised
            and (each not in self._names or self._names[each] is not self._promised[each])
            for each in (path, *path.parents)
        )

    def _has_parent(self, path: Path, kept: Image) -> bool:
        return path.parent in kept or not any(top in path.parents for top in self._tops)

    def _coin(self) -> bool:
        return self._chance.random() < 0.5

    # --- files and folders ---

    def has(self, path: Path) -> bool:
        """True if the path belongs to the medium."""
        if path.name.endswith("-shm"):  # neither durable nor needed
            return False
        return any(path in names_of(top) or top in path.parents for top in self._tops)

    def is_above(self, folder: Path) -> bool:
        """True if the folder directly contains one of the tops."""
        return any(top.parent == folder for top in self._tops)

    def adopt(self) -> None:
        """Make everything that exists now durable."""
        self._files.clear()
        self._names.clear()
        self._promised.clear()
        for path in self.walk():
            if path.is_dir():
                self._names[path] = None
            else:
                content = self._files[path.stat().st_ino] = Content(path.read_bytes())
                self._names[path] = content

    def current(self) -> Image:
        """Image of everything that exists now."""
        return {
            path: None if path.is_dir() else path.read_bytes()
            for path in self.walk()
            if not path.name.endswith("-shm")
        }

    def replace(self, image: Image) -> None:
        """Make files and folders equal to the image, and durable."""
        for path in sorted(self.walk(), reverse=True):
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
        self.adopt()

    def walk(self) -> Iterator[Path]:
        """Yield every file and folder, including the tops; folders before their content."""
        waiting = [path for top in self._tops for path in (top, *names_of(top)[1:])]
        while waiting:
            path = waiting.pop()
            if not path.exists():
                continue
            yield path
            if path.is_dir():
                waiting += path.iterdir()

    def _content(self, inode: int) -> Content:
        return self._files.setdefault(inode, Content())


_GONE = object()


def names_of(database: Path) -> list[Path]:
    """Possible files of a SQLite database."""
    return [database, Path(f"{database}-wal"), Path(f"{database}-shm"), Path(f"{database}-journal")]


def read_database(file: Path) -> Mapping[Path, bytes]:
    """Existing files of a SQLite database and their content."""
    return {path: path.read_bytes() for path in names_of(file) if path.is_file()}


def _changed_pages(old: bytes, new: bytes) -> dict[int, bytes]:
    """Changed pages of ``new``, by number, with their previous content."""
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
    """Mix sectors of the old and new content; the length is one of the two or between them."""
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

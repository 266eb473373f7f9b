"""What a simulated disk has durable, and what a power cut leaves of the rest.

Files lie on the real file system, as the running platform sees them.  Beside them is kept what is
durable: the content of each file as of its last flush, and the names of each folder as of the
folder's last flush.  A power cut decides for every difference between the two, by sector and by
name, whether it had reached the disk.

What a flush promised and did not do is kept apart, so that it is known afterwards what the lie has
cost, and nothing else is forgiven.
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
"""The content of each file; None for a folder."""


class Content:
    """The content of one file as it is durable, whatever its names are."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.promised = data
        """As of the last flush that succeeded, or said so."""
        self.spoilt: dict[int, bytes] = {}
        """Pages that a failed flush dropped: they stay lost until they are written again."""


class Medium:
    """The files and folders under ``tops``.  What is above them is taken to be durable."""

    def __init__(self, tops: Collection[Path], chance: random.Random) -> None:
        self.damaged: dict[Path, int] = {}
        """Files that are not what was promised, with the lines in the writes that it cost."""
        self.lost: set[Path] = set()
        """SQLite files that are gone because a flush of a folder above them has lied."""
        self.cuts: Counter[str] = Counter()
        """What power cuts have done."""
        self._tops = tops
        self._chance = chance
        self._files: dict[int, Content] = {}  # by inode: what is linked now
        self._names: dict[Path, Content | None] = {}  # durable names; None is a folder
        self._promised: dict[Path, Content | None] = {}  # names of which a flush has only said so
        self._writes: dict[Path, list[tuple[int, int]]] = {}
        self.adopt()

    # --- what is written ---

    def wrote(self, path: Path, inode: int, start: int, length: int) -> None:
        """Some bytes were written; pages that a failed flush dropped are dirty again."""
        self._writes.setdefault(path, []).append((start, start + length))
        content = self._content(inode)
        for page in range(start // PAGE_BYTES, (start + length) // PAGE_BYTES + 1):
            content.spoilt.pop(page, None)

    def flush(self, inode: int, data: bytes, *, lie: bool) -> None:
        """The file with this content is durable, or was said to be."""
        content = self._content(inode)
        for page, lost in content.spoilt.items():
            start = page * PAGE_BYTES
            data = data[:start] + lost[: len(data) - start] + data[start + PAGE_BYTES :]
        content.promised = data
        if not lie:
            content.data = data

    def fail_flush(self, inode: int, data: bytes) -> None:
        """A flush failed: what it should have written is clean, and not on disk."""
        content = self._content(inode)
        content.spoilt |= _changed_pages(content.data, data)

    def flush_folder(self, folder: Path, *, lie: bool = False) -> None:
        """The names of a folder are durable, or were said to be."""
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
        """A file is no longer linked; its number may be another file's next."""
        self._files.pop(inode, None)
        self._writes.pop(path, None)
        self._promised.pop(path, None)

    def flip(self, path: Path, at: int, mask: int) -> None:
        """Change bits of one byte, in the file and on disk."""
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

    # --- the end of a life ---

    def cut(self, image: Image, databases: Mapping[Path, Image]) -> Image:
        """What of the image a power cut leaves.

        ``databases`` has what it leaves of the files of each SQLite file, if their folder is left.
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
        """Content of the file that has this name after the cut, None for a folder, or _GONE."""
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
        """Find what is not there because a flush has lied; what else is not is not forgiven."""
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
            if spans:
                self.cuts["promise broken"] += 1
                self._charge(path, promised, spans)

    def _was_lied_about(self, path: Path) -> bool:
        """Whether a flush has only said that its name was durable, or that of a folder above it."""
        return any(
            each in self._promised
            and (each not in self._names or self._names[each] is not self._promised[each])
            for each in (path, *path.parents)
        )

    def _has_parent(self, path: Path, kept: Image) -> bool:
        return path.parent in kept or not any(top in path.parents for top in self._tops)

    def _coin(self) -> bool:
        return self._chance.random() < 0.5

    # --- what is there ---

    def has(self, path: Path) -> bool:
        """Whether it is one of the files and folders."""
        if path.name.endswith("-shm"):  # not durable, nor needed
            return False
        return any(path in names_of(top) or top in path.parents for top in self._tops)

    def is_above(self, folder: Path) -> bool:
        """Whether it has one of the tops in it."""
        return any(top.parent == folder for top in self._tops)

    def adopt(self) -> None:
        """All that is there now is durable."""
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
        """All that is there now."""
        return {
            path: None if path.is_dir() else path.read_bytes()
            for path in self.walk()
            if not path.name.endswith("-shm")
        }

    def replace(self, image: Image) -> None:
        """Make the files and folders what the image says, and all of it durable."""
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
        """Every file and folder, the tops included; a folder comes before what is in it."""
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
    """The files of a SQLite database."""
    return [database, Path(f"{database}-wal"), Path(f"{database}-shm"), Path(f"{database}-journal")]


def read_database(file: Path) -> Mapping[Path, bytes]:
    """The files of a SQLite database that are there, with their content."""
    return {path: path.read_bytes() for path in names_of(file) if path.is_file()}


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

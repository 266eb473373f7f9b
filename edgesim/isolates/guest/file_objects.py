"""Objects that ``open`` and ``os.scandir`` return for files and folders in memory."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from typing import Any, Self

from edgesim.isolates.guest.memory_files import FileSystem, Node


class MemoryFile(io.RawIOBase):
    """Unbuffered file object of a file in memory."""

    mode: str
    name: Any

    def __init__(
        self, files: FileSystem, descriptor: int, mode: str, name: Any, *, closes: bool = True
    ) -> None:
        self._files = files
        self._descriptor = descriptor
        self._opened = files.opened_with(descriptor)
        self._closes = closes
        self.mode = mode
        self.name = name

    def fileno(self) -> int:
        self._check()
        return self._descriptor

    def readable(self) -> bool:
        self._check()
        return self._opened.reads

    def writable(self) -> bool:
        self._check()
        return self._opened.writes

    def seekable(self) -> bool:
        self._check()
        return True

    def readinto(self, buffer: Any) -> int:
        self._check()
        if not self._opened.reads:
            raise io.UnsupportedOperation("File not open for reading")
        with memoryview(buffer).cast("B") as view:
            data = self._files.read(self._descriptor, len(view))
            view[: len(data)] = data
            return len(data)

    def write(self, data: Any) -> int:
        self._check()
        if not self._opened.writes:
            raise io.UnsupportedOperation("File not open for writing")
        return self._files.write(self._descriptor, data)

    def seek(self, position: int, how: int = os.SEEK_SET) -> int:
        self._check()
        return self._files.lseek(self._descriptor, position, how)

    def tell(self) -> int:
        self._check()
        return self._opened.position

    def truncate(self, size: int | None = None) -> int:
        self._check()
        if not self._opened.writes:
            raise io.UnsupportedOperation("File not open for writing")
        length = self._opened.position if size is None else size
        self._files.ftruncate(self._descriptor, length)
        return length

    def close(self) -> None:
        if not self.closed:
            super().close()
            if self._closes:
                self._files.close(self._descriptor)

    def __repr__(self) -> str:
        if self.closed:
            return "<_io.FileIO [closed]>"
        return f"<_io.FileIO name={self.name!r} mode={self.mode!r} closefd={self._closes}>"

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")


class FolderEntry:
    """Result of ``os.scandir`` for a file or a folder in memory."""

    def __init__(self, name: str | bytes, path: str | bytes, node: Node) -> None:
        self.name = name
        self.path = path
        self._node = node

    def __fspath__(self) -> str | bytes:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._node.entries is not None

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._node.entries is None

    def is_symlink(self) -> bool:
        return False

    def is_junction(self) -> bool:
        return False

    def inode(self) -> int:
        return self._node.number

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return self._node.status()


class FolderListing:
    """Iterator over a folder in memory, as ``os.scandir`` returns it."""

    def __init__(self, entries: list[FolderEntry]) -> None:
        self._entries = iter(entries)

    def __iter__(self) -> Iterator[FolderEntry]:
        return self

    def __next__(self) -> FolderEntry:
        return next(self._entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries = iter(())


def flags_of(mode: str) -> int:
    """Return the flags for ``os.open``; ValueError for a mode that ``open`` does not have."""
    kinds = set(mode) & set("rwax")
    if len(mode) != len(set(mode)) or set(mode) - set("rwaxbt+") or {"b", "t"} <= set(mode):
        raise ValueError(f"invalid mode: {mode!r}")
    if len(kinds) != 1:
        raise ValueError(
            "must have exactly one of create/read/write/append mode and at most one plus"
        )
    access = os.O_RDWR if "+" in mode else os.O_RDONLY if "r" in mode else os.O_WRONLY
    made = {
        "r": 0,
        "w": os.O_CREAT | os.O_TRUNC,
        "a": os.O_CREAT | os.O_APPEND,
        "x": os.O_CREAT | os.O_EXCL,
    }
    return access | made[kinds.pop()]


def file_object(
    files: FileSystem,
    descriptor: int,
    name: Any,
    mode: str,
    buffering: int,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
    closes: bool,
) -> Any:
    """Return the file object for a descriptor, as ``open`` layers it."""
    is_text = "b" not in mode
    if is_text and buffering == 0:
        raise ValueError("can't have unbuffered text I/O")
    if not is_text and (encoding, errors, newline) != (None, None, None):
        raise ValueError("binary mode doesn't take an encoding, errors or newline argument")
    opened = files.opened_with(descriptor)
    if opened.node.entries is not None:
        if closes and type(name) is not int:
            files.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    raw_mode = "".join(each for each in "rwax" if each in mode) + "b" + "+" * ("+" in mode)
    raw = MemoryFile(files, descriptor, raw_mode, name, closes=closes)
    if "a" in mode:
        raw.seek(0, os.SEEK_END)
    if buffering == 0:
        return raw
    size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
    buffer: Any
    if "+" in mode:
        buffer = io.BufferedRandom(raw, size)
    else:
        buffer = io.BufferedReader(raw, size) if "r" in mode else io.BufferedWriter(raw, size)
    if not is_text:
        return buffer
    known = "utf-8" if encoding in {None, "locale"} else encoding
    text = io.TextIOWrapper(buffer, known, errors, newline, line_buffering=buffering == 1)
    text.mode = mode  # type: ignore[misc]  # as `open` does
    return text

"""The file system of one invocation: ``/tmp``, in memory.

Files are byte arrays of this process, so they count against the isolate's memory limit.  Nothing
here opens a file of the machine.  As in Pyodide, permissions are stored but not enforced.  There
are no links.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import Any, NoReturn

ROOT = "/tmp"  # noqa: S108 (the name of the folder in memory)
FIRST_DESCRIPTOR = 1 << 30
"""First descriptor of a file in memory; the kernel's are lower, so the two kinds stay apart."""
BYTES_MAX = 128 * 1024 * 1024
"""Maximum size of all files of an invocation, as much as the platform's memory limit."""
_NODE_BYTES = 1024
"""Bytes that each file and folder counts in addition to its content."""
_PERMISSIONS = 0o777
_UMASK = 0o022
_DEVICE = 1


class Node:
    """A file or a folder; ``entries`` is None for a file."""

    def __init__(self, number: int, mode: int, *, is_folder: bool) -> None:
        self.number = number
        self.permissions = mode & _PERMISSIONS
        self.content = bytearray()
        self.entries: dict[str, Node] | None = {} if is_folder else None
        self.modified_ns = self.accessed_ns = time.time_ns()
        self.opened = 0
        self.is_listed = True
        """True until it is removed from its folder."""

    def status(self) -> os.stat_result:
        """Return the node's ``os.stat`` result."""
        is_folder = self.entries is not None
        mode = self.permissions | (stat.S_IFDIR if is_folder else stat.S_IFREG)
        seconds = self.accessed_ns // 10**9, self.modified_ns // 10**9
        return os.stat_result(
            (
                *(mode, self.number, _DEVICE, 2 if is_folder else 1, 0, 0),
                *(len(self.content), *seconds, seconds[1]),
            ),
            {
                "st_atime": self.accessed_ns / 1e9,
                "st_mtime": self.modified_ns / 1e9,
                "st_ctime": self.modified_ns / 1e9,
                "st_atime_ns": self.accessed_ns,
                "st_mtime_ns": self.modified_ns,
                "st_ctime_ns": self.modified_ns,
            },
        )


class OpenNode:
    """An open file or folder, to which one or more descriptors refer."""

    def __init__(self, node: Node, path: str, flags: int) -> None:
        self.node = node
        self.path = path
        self.flags = flags
        self.position = 0
        self.descriptors = 1

    @property
    def reads(self) -> bool:
        """True if it was opened for reading."""
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def writes(self) -> bool:
        """True if it was opened for writing."""
        return self.flags & os.O_ACCMODE != os.O_RDONLY


class FileSystem:
    """Files of one invocation.  Paths are absolute, normalised, and begin with ``ROOT``."""

    def __init__(self) -> None:
        self._numbers = 1
        self._root = Node(1, _PERMISSIONS, is_folder=True)
        self._open: dict[int, OpenNode] = {}
        self._next = FIRST_DESCRIPTOR
        self._bytes = 0

    # --- by path ---

    def open(self, path: str, flags: int, mode: int = _PERMISSIONS) -> int:
        """Open or create a file; returns its descriptor."""
        folder, name = self._folder_of(path)
        node = self._root if folder is None else _entries(folder, path).get(name)
        if node is None:
            if not flags & os.O_CREAT:
                _fail(errno.ENOENT, path)
            node = self._add(folder, name, mode & ~_UMASK, path, is_folder=False)
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            _fail(errno.EEXIST, path)
        opened = OpenNode(node, path, flags)
        if node.entries is not None and (opened.writes or flags & os.O_CREAT):
            _fail(errno.EISDIR, path)
        if node.entries is None and flags & os.O_DIRECTORY:
            _fail(errno.ENOTDIR, path)
        if flags & os.O_TRUNC and opened.writes:
            self._resize(node, 0)
        node.opened += 1
        return self._descriptor(opened)

    def stat(self, path: str, *, follow_symlinks: bool = True) -> os.stat_result:
        return self._node(path).status()

    def lstat(self, path: str) -> os.stat_result:
        return self._node(path).status()

    def access(self, path: str, mode: int, **_: Any) -> bool:
        try:
            self._node(path)
        except OSError:
            return False
        return True

    def mkdir(self, path: str, mode: int = _PERMISSIONS) -> None:
        folder, name = self._folder_of(path)
        if folder is None or name in _entries(folder, path):
            _fail(errno.EEXIST, path)
        self._add(folder, name, mode & ~_UMASK, path, is_folder=True)

    def rmdir(self, path: str) -> None:
        node = self._node(path)
        if node.entries is None:
            _fail(errno.ENOTDIR, path)
        if node is self._root:
            _fail(errno.EBUSY, path)
        if node.entries:
            _fail(errno.ENOTEMPTY, path)
        self._remove(path)

    def unlink(self, path: str) -> None:
        if self._node(path).entries is not None:
            _fail(errno.EISDIR, path)
        self._remove(path)

    remove = unlink

    def rename(self, path: str, to: str) -> None:
        node = self._node(path)
        folder, name = self._folder_of(to)
        if folder is None or node is self._root or (f"{to}/".startswith(f"{path}/") and to != path):
            _fail(errno.EBUSY if folder is None else errno.EINVAL, path, to)
        existing = _entries(folder, to).get(name)
        if existing is node:
            return
        if existing is not None:
            if existing.entries is None and node.entries is not None:
                _fail(errno.ENOTDIR, path, to)
            if existing.entries is not None and node.entries is None:
                _fail(errno.EISDIR, path, to)
            if existing.entries:
                _fail(errno.ENOTEMPTY, path, to)
            self._remove(to)
        before, old_name = self._folder_of(path)
        assert before is not None
        _entries(folder, to)[name] = _entries(before, path).pop(old_name)

    replace = rename

    def listdir(self, path: str | int) -> list[str]:
        return list(self.entries(path)[1])

    def entries(self, path: str | int) -> tuple[str, dict[str, Node]]:
        """Return the path of a folder, given by path or descriptor, and its entries."""
        opened = self._opened(path) if isinstance(path, int) else None
        node = self._node(str(path)) if opened is None else opened.node
        where = str(path) if opened is None else opened.path
        return where, _entries(node, where)

    def chmod(self, path: str | int, mode: int, *, follow_symlinks: bool = True) -> None:
        self._of(path).permissions = mode & _PERMISSIONS

    def chown(self, path: str | int, *_: Any, **__: Any) -> None:
        self._of(path)

    lchown = chown

    def listxattr(self, path: str | int, **_: Any) -> list[str]:
        self._of(path)
        return []

    def getxattr(self, path: str | int, *_: Any, **__: Any) -> NoReturn:
        _fail(errno.ENOTSUP, path)

    setxattr = removexattr = getxattr

    def utime(
        self,
        path: str | int,
        times: tuple[float, float] | None = None,
        *,
        ns: tuple[int, int] | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        node = self._of(path)
        if times is not None and ns is None:
            ns = int(times[0] * 1e9), int(times[1] * 1e9)
        node.accessed_ns, node.modified_ns = ns or (time.time_ns(), time.time_ns())

    def truncate(self, path: str | int, length: int) -> None:
        node = self._of(path)
        if node.entries is not None:
            _fail(errno.EISDIR, path)
        self._resize(node, length)

    def symlink(self, path: str, *_: Any, **__: Any) -> NoReturn:
        _fail(errno.EPERM, path)

    link = symlink

    # --- by descriptor ---

    def path_of(self, descriptor: int) -> str:
        """Return the path of an open folder, for a path relative to it."""
        opened = self._opened(descriptor)
        _entries(opened.node, opened.path)
        return opened.path

    def opened_with(self, descriptor: int) -> OpenNode:
        """Return the open file of a descriptor; OSError for any other."""
        return self._opened(descriptor)

    def close(self, descriptor: int) -> None:
        opened = self._opened(descriptor)
        del self._open[descriptor]
        opened.descriptors -= 1
        if opened.descriptors == 0:
            opened.node.opened -= 1
            self._free(opened.node)

    def dup(self, descriptor: int) -> int:
        opened = self._opened(descriptor)
        opened.descriptors += 1
        return self._descriptor(opened)

    def fstat(self, descriptor: int) -> os.stat_result:
        return self._opened(descriptor).node.status()

    def fsync(self, descriptor: int) -> None:
        self._opened(descriptor)

    fdatasync = fsync

    def isatty(self, descriptor: int) -> bool:
        return False

    def ftruncate(self, descriptor: int, length: int) -> None:
        if not self._opened(descriptor).writes:
            _fail(errno.EINVAL)
        self._resize(self._opened(descriptor).node, length)

    def fchmod(self, descriptor: int, mode: int) -> None:
        self.chmod(descriptor, mode)

    def lseek(self, descriptor: int, position: int, how: int) -> int:
        opened = self._opened(descriptor)
        start = {
            os.SEEK_SET: 0,
            os.SEEK_CUR: opened.position,
            os.SEEK_END: len(opened.node.content),
        }.get(how)
        if start is None or start + position < 0:
            _fail(errno.EINVAL)
        opened.position = start + position
        return opened.position

    def read(self, descriptor: int, size: int) -> bytes:
        opened = self._opened(descriptor)
        data = self.pread(descriptor, size, opened.position)
        opened.position += len(data)
        return data

    def pread(self, descriptor: int, size: int, position: int) -> bytes:
        opened = self._opened(descriptor)
        if not opened.reads:
            _fail(errno.EBADF)
        if opened.node.entries is not None:
            _fail(errno.EISDIR)
        if size < 0 or position < 0:
            _fail(errno.EINVAL)
        return bytes(opened.node.content[position : position + size])

    def write(self, descriptor: int, data: Any) -> int:
        opened = self._opened(descriptor)
        if opened.flags & os.O_APPEND:
            opened.position = len(opened.node.content)
        written = self.pwrite(descriptor, data, opened.position)
        opened.position += written
        return written

    def pwrite(self, descriptor: int, data: Any, position: int) -> int:
        opened = self._opened(descriptor)
        if not opened.writes:
            _fail(errno.EBADF)
        with memoryview(data).cast("B") as view:
            end = position + len(view)
            if end > len(opened.node.content):
                self._resize(opened.node, end)
            opened.node.content[position:end] = view
            opened.node.modified_ns = time.time_ns()
            return len(view)

    # --- inside ---

    def _opened(self, descriptor: int) -> OpenNode:
        opened = self._open.get(descriptor)
        if opened is None:
            _fail(errno.EBADF)
        return opened

    def _of(self, path: str | int) -> Node:
        return self._opened(path).node if isinstance(path, int) else self._node(path)

    def _descriptor(self, opened: OpenNode) -> int:
        descriptor, self._next = self._next, self._next + 1
        self._open[descriptor] = opened
        return descriptor

    def _node(self, path: str) -> Node:
        folder, name = self._folder_of(path)
        node = self._root if folder is None else _entries(folder, path).get(name)
        if node is None:
            _fail(errno.ENOENT, path)
        return node

    def _folder_of(self, path: str) -> tuple[Node | None, str]:
        """Return the folder of a path and the name in it; no folder for the root itself."""
        *folders, name = path.removeprefix(ROOT).split("/")
        if not folders:
            return None, ""
        node = self._root
        for each in folders[1:]:
            found = _entries(node, path).get(each)
            if found is None:
                _fail(errno.ENOENT, path)
            node = found
        _entries(node, path)
        return node, name

    def _add(
        self, folder: Node | None, name: str, mode: int, path: str, *, is_folder: bool
    ) -> Node:
        assert folder is not None
        self._count(_NODE_BYTES + len(name), path)
        self._numbers += 1
        node = Node(self._numbers, mode, is_folder=is_folder)
        _entries(folder, path)[name] = node
        return node

    def _remove(self, path: str) -> None:
        folder, name = self._folder_of(path)
        assert folder is not None
        node = _entries(folder, path).pop(name)
        node.is_listed = False
        self._bytes -= _NODE_BYTES + len(name)
        self._free(node)

    def _free(self, node: Node) -> None:
        if not node.is_listed and node.opened == 0:
            self._resize(node, 0)

    def _resize(self, node: Node, length: int) -> None:
        if length < 0:
            _fail(errno.EINVAL)
        more = length - len(node.content)
        self._count(more, None)
        if more > 0:
            node.content.extend(bytes(more))
        else:
            del node.content[length:]
        node.modified_ns = time.time_ns()

    def _count(self, more: int, path: str | None) -> None:
        if more > 0 and self._bytes + more > BYTES_MAX:
            _fail(errno.ENOSPC, path)
        self._bytes += more


def _entries(node: Node, path: Any) -> dict[str, Node]:
    if node.entries is None:
        _fail(errno.ENOTDIR, path)
    return node.entries


def _fail(number: int, path: Any = None, to: Any = None) -> NoReturn:
    if path is None or isinstance(path, int):
        raise OSError(number, os.strerror(number))
    if to is None:
        raise OSError(number, os.strerror(number), path)
    raise OSError(number, os.strerror(number), path, None, to)

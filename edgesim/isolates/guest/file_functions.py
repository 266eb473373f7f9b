"""Functions of the library that use files: in an invocation, ``/tmp`` is its own, in memory.

``open`` and the functions of ``os`` are replaced once by functions that look up the running
invocation, as in clock_and_random.py; ``tempfile``, ``pathlib``, ``shutil``, ``zipfile`` and
others are built on these.  Outside invocations, and for every path elsewhere, they call the real
function, which the guards judge.  What an import writes is dropped after it: the platform's
start-up snapshot contains no files.

Folders that contain the Worker's modules or the library stay visible if they are below ``/tmp``.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import posixpath
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from workers._runtime import current

from edgesim.isolates.guest.clock_and_random import in_global_scope
from edgesim.isolates.guest.file_objects import FolderEntry, FolderListing, file_object, flags_of
from edgesim.isolates.guest.memory_files import FIRST_DESCRIPTOR, ROOT, FileSystem

RULE = "Permission denied: a Worker writes files only in /tmp, in memory; or use io.BytesIO, R2"
_BY_PATH = (
    *("access", "chmod", "chown", "lchown", "listdir", "lstat", "mkdir", "remove", "rmdir"),
    *("getxattr", "listxattr", "removexattr", "setxattr", "stat", "truncate", "unlink", "utime"),
)
_CHANGING = {
    *("chmod", "chown", "lchown", "mkdir", "remove", "removexattr", "rmdir", "setxattr"),
    *("truncate", "unlink", "utime"),
}
_BY_DESCRIPTOR = (
    *("close", "dup", "fchmod", "fdatasync", "fstat", "fsync", "ftruncate", "isatty", "lseek"),
    *("pread", "pwrite", "read", "write"),
)
_PLATFORMS = {"edgesim", "importlib", "_frozen_importlib", "_frozen_importlib_external"}
_TOP = ROOT.removeprefix("/")
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789_"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_real_open = io.open
_real_temporary_file = tempfile.TemporaryFile
_real_tempdir: Callable[[], Any] = getattr(tempfile, "_gettempdir", tempfile.gettempdir)
_real_names: Callable[[], Any] = tempfile._get_candidate_names  # type: ignore[attr-defined]
_visible: tuple[str, ...] = ()
_installed = False


class _MemoryPath(NamedTuple):
    """A path in memory."""

    files: FileSystem
    path: str


@contextmanager
def visible(folders: list[str]) -> Iterator[None]:
    """Keep these folders of the machine visible, also below ``/tmp``, during the block."""
    global _visible  # noqa: PLW0603 (it changes the process)
    added = _below_root(folders)
    _visible += added
    try:
        yield
    finally:
        left = list(_visible)
        for each in added:
            left.remove(each)
        _visible = tuple(left)


def install(folders: list[str]) -> None:
    """Replace the library's functions in this process, once; ``folders`` stay visible."""
    global _installed, _visible  # noqa: PLW0603 (it changes the process)
    _visible += _below_root(folders)
    if _installed:
        return
    _installed = True
    replaced: dict[Any, Any] = {_real_open: _open, _real_temporary_file: _temporary_file}
    for name in _BY_PATH:
        if hasattr(os, name):
            replaced[getattr(os, name)] = _by_path(name)
    for name in ("rename", "replace", "link", "symlink"):
        replaced[getattr(os, name)] = _of_two_paths(name)
    for name in _BY_DESCRIPTOR:
        if hasattr(os, name):
            replaced[getattr(os, name)] = _by_descriptor(name)
    replaced[os.open] = _os_open
    replaced[os.scandir] = _scandir
    for kept in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        kept |= {new for real, new in replaced.items() if real in kept}
    _replace_in_library(replaced)
    _replace_in_tempfile(replaced)


def _below_root(folders: list[str]) -> tuple[str, ...]:
    paths = [os.path.abspath(each) for each in (*folders, sys.prefix, sys.base_prefix) if each]
    return tuple({path for path in paths if path.startswith(f"{ROOT}/")})


def _replace_in_library(replaced: dict[Any, Any]) -> None:
    """Replace the functions wherever a module of the library has a name for them."""
    by_id = {id(real): new for real, new in replaced.items()}
    for module_name, module in list(sys.modules.items()):
        top = module_name.partition(".")[0]
        if top in _PLATFORMS or top in {"posix", "_io"} or top not in sys.stdlib_module_names:
            continue
        for name, value in list(vars(module).items()):
            if id(value) in by_id:
                setattr(module, name, by_id[id(value)])
    globber: Any = getattr(sys.modules.get("glob"), "_StringGlobber", None)
    for name, new in (("scandir", os.scandir), ("lstat", os.lstat)):
        if name in vars(globber or object):
            setattr(globber, name, staticmethod(new))


def _replace_in_tempfile(replaced: dict[Any, Any]) -> None:
    library: Any = tempfile
    library._gettempdir = _gettempdir
    library._get_candidate_names = _get_candidate_names
    closer: Any = library._TemporaryFileCloser
    for method in vars(closer).values():
        defaults = getattr(method, "__defaults__", None)
        if defaults:
            method.__defaults__ = tuple(
                _unlink_later if each in replaced else each for each in defaults
            )


# --- where a path leads ---


def _files() -> FileSystem | None:
    """Return the files of the running import or invocation; None outside both."""
    running: Any = in_global_scope.get() or current.get(None)
    return None if running is None else running.files


def _place(path: Any, dir_fd: int | None = None) -> _MemoryPath | None:
    """Return the place of a path in memory; None for a path of the machine."""
    if type(path) is int:
        return None
    try:
        text = os.fsdecode(path)
    except TypeError:
        return None  # the real function raises the right exception
    if type(dir_fd) is int and dir_fd >= FIRST_DESCRIPTOR and (files := _files()) is not None:
        text = posixpath.join(files.path_of(dir_fd), text)
    if not text.startswith("/"):
        return None
    text = posixpath.normpath(text)
    if text.startswith("//"):
        text = text[1:]
    if (text != ROOT and not text.startswith(f"{ROOT}/")) or _is_visible(text):
        return None
    files = _files()
    return None if files is None else _MemoryPath(files, text)


def _is_top(path: Any) -> bool:
    """Return True for the folder above ``/tmp``, which is a Worker's current folder too."""
    return not isinstance(path, int) and posixpath.normpath(os.fsdecode(path)) in {".", "/"}


def _is_visible(path: str) -> bool:
    """Return True for a visible folder, what is in it, and the folders around it."""
    if path == ROOT:
        return False
    return any(
        f"{path}/".startswith(f"{each}/") or each.startswith(f"{path}/") for each in _visible
    )


def _is_memory(descriptor: Any) -> bool:
    return type(descriptor) is int and descriptor >= FIRST_DESCRIPTOR


# --- functions of os ---


def _by_path(name: str) -> Callable[..., Any]:
    real = getattr(os, name)

    @functools.wraps(real)
    def call(path: Any = ".", *args: Any, dir_fd: int | None = None, **options: Any) -> Any:
        if _is_memory(path) and (files := _files()) is not None:
            if name == "stat":
                return files.fstat(path)
            return getattr(files, name)(path, *args, **options)
        place = _place(path, dir_fd)
        if place is not None:
            found = getattr(place.files, name)(place.path, *args, **options)
            return [each.encode() for each in found] if _gives_bytes(path, found) else found
        if name == "listdir" and _is_top(path) and _files() is not None:
            return [os.fsencode(_TOP) if isinstance(path, bytes) else _TOP]
        if name in _CHANGING:
            _refuse(path)
        if dir_fd is not None:
            options["dir_fd"] = dir_fd
        return real(path, *args, **options)

    return call


def _gives_bytes(path: Any, found: Any) -> bool:
    return type(found) is list and isinstance(os.fspath(path), bytes)


def _of_two_paths(name: str) -> Callable[..., Any]:
    real = getattr(os, name)

    @functools.wraps(real)
    def call(
        src: Any,
        dst: Any,
        *args: Any,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        **options: Any,
    ) -> Any:
        places = _place(src, src_dir_fd), _place(dst, dst_dir_fd)
        if places[0] is not None and places[1] is not None:
            return getattr(places[0].files, name)(places[0].path, places[1].path)
        if places[0] is not None or places[1] is not None:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), src, None, dst)
        _refuse(src)
        folders = {"src_dir_fd": src_dir_fd, "dst_dir_fd": dst_dir_fd}
        options |= {key: value for key, value in folders.items() if value is not None}
        return real(src, dst, *args, **options)

    return call


def _by_descriptor(name: str) -> Callable[..., Any]:
    real = getattr(os, name)

    @functools.wraps(real)
    def call(fd: Any, *args: Any, **options: Any) -> Any:
        if _is_memory(fd) and (files := _files()) is not None:
            return getattr(files, name)(fd, *args, **options)
        return real(fd, *args, **options)

    return call


@functools.wraps(os.open)
def _os_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    place = _place(path, dir_fd)
    if place is not None:
        return place.files.open(place.path, flags, mode)
    if flags & _WRITING:
        _refuse(path)
    return _real_os_open(path, flags, mode, dir_fd=dir_fd)


_real_os_open = os.open


@functools.wraps(os.scandir)
def _scandir(path: Any = ".") -> Any:
    files = _files() if _is_memory(path) else None
    place = _place(path) if files is None else None
    if files is not None:
        entries = files.entries(path)[1]
        return FolderListing([FolderEntry(name, name, node) for name, node in entries.items()])
    if place is None:
        return _real_scandir(path)
    given = os.fspath(path)
    found = place.files.entries(place.path)[1].items()
    if isinstance(given, bytes):
        named = [(name.encode(), node) for name, node in found]
        return FolderListing(
            [FolderEntry(name, os.path.join(given, name), node) for name, node in named]
        )
    return FolderListing(
        [FolderEntry(name, os.path.join(given, name), node) for name, node in found]
    )


_real_scandir = os.scandir


# --- open ---


@functools.wraps(_real_open)
def _open(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[Any, int], int] | None = None,
) -> Any:
    in_memory = _is_memory(file) or opener is not None or _place(file) is not None
    files = _files() if in_memory else None
    if files is None:
        if type(file) is not int and set(mode) & set("wax+"):
            _refuse(file)
        return _real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
    flags = flags_of(mode)
    if _is_memory(file):
        descriptor = file
    else:
        descriptor = (opener or _default_opener)(file, flags)
        if not _is_memory(descriptor):  # the opener has opened a file of the machine
            return _real_open(descriptor, mode, buffering, encoding, errors, newline)
    return file_object(files, descriptor, file, mode, buffering, encoding, errors, newline, closefd)


def _default_opener(file: Any, flags: int) -> int:
    return _os_open(file, flags, 0o666)


def _refuse(path: Any) -> None:
    """Raise the exception of worker code that changes files of the machine, at every level."""
    if type(path) is not int and _files() is not None:
        raise PermissionError(errno.EACCES, RULE, path)


# --- tempfile ---


def _gettempdir() -> Any:
    return _real_tempdir() if _files() is None else ROOT


def _get_candidate_names() -> Any:
    return _real_names() if _files() is None else _Names()


class _Names:
    """Names of temporary files, from the invocation's random numbers."""

    def __iter__(self) -> _Names:
        return self

    def __next__(self) -> str:
        return "".join(random.choices(_CHARACTERS, k=8))


@functools.wraps(_real_temporary_file)
def _temporary_file(
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: str | None = None,
    prefix: str | None = None,
    dir: Any = None,
    *,
    errors: str | None = None,
) -> Any:
    if _files() is None:
        return _real_temporary_file(
            mode, buffering, encoding, newline, suffix, prefix, dir, errors=errors
        )
    descriptor, name = tempfile.mkstemp(suffix, prefix, dir)
    os.unlink(name)
    return _open(descriptor, mode, buffering, encoding, errors, newline)


def _unlink_later(path: Any) -> None:
    """Remove a temporary file; nothing happens if its owner outlived the file's invocation.

    Garbage is collected at any time, also while another invocation runs or none.
    """
    with suppress(FileNotFoundError if _files() is not None else OSError):
        os.unlink(path)

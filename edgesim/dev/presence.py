"""Who owns a state directory: one process at a time, and the others can find it.

The owner holds a lock on ``<state>/owner.json``, which says where it serves; one on the directory
itself, which holds by whatever path it is reached; and one on each of the directory's names, which
holds when the directory is deleted or replaced while the owner runs.  A lock, unlike a pid file,
ends with its process, however that ends.

The state is the user's own: events hold personal data and owner.json a token.  So while a state is
owned, everything that this process and its children create is private, and what an older version
left open to others is closed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from edgesim import durable
from edgesim.errors import RunError, UsageError

FILE = "owner.json"
_OTHERS = 0o077

log = structlog.get_logger()


class Owner(msgspec.Struct, omit_defaults=True):
    """The process that owns the state; ``url`` is None while it does not serve.

    ``backends`` are the URLs of its open stores by name, in the form of ``same_place``.
    """

    pid: int
    url: str | None = None
    token: str | None = None
    backends: dict[str, str] = {}


class Ownership:
    """The lock, while it is held."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def announce(self, owner: Owner) -> None:
        """Tell others how to reach the owner."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(msgspec.json.encode(owner))
        self._file.flush()


@contextmanager
def own(state: Path, name: Path | None = None) -> Iterator[Ownership]:
    """Own the state directory; UsageError if another process does, or if it cannot be written.

    ``name`` is the path that the user gave, if it differs.  Until the end of the block the
    process's umask is 0077.
    """
    umask = os.umask(_OTHERS)
    try:
        with _owned(state, name or state) as ownership:
            yield ownership
    finally:
        os.umask(umask)


@contextmanager
def _owned(state: Path, name: Path) -> Iterator[Ownership]:
    try:
        _make_private(state)
        descriptor = os.open(state / FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UsageError(f"cannot use the state directory {state}: {error.strerror}") from error
    with os.fdopen(descriptor, "r+b") as file, ExitStack() as locks:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locks.enter_context(_lock_folder(state))
            locks.enter_context(_lock_names({state.absolute(), state.resolve(), name.absolute()}))
        except (BlockingIOError, _NameTakenError):
            owner = _read(state)
            who = f"process {owner.pid}" if owner else "another process"
            at = f" at {owner.url}" if owner and owner.url else ""
            raise UsageError(
                f"{state} is in use by {who}{at}; stop it or choose another --state"
            ) from None
        ownership = Ownership(file)
        ownership.announce(Owner(os.getpid()))
        yield ownership


class _NameTakenError(Exception):
    """Another process has a name of the state directory."""


@contextmanager
def _lock_folder(state: Path) -> Iterator[None]:
    """Lock the directory; BlockingIOError if another process has it."""
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise
    except OSError as error:  # a network file system may lock no directories
        log.warning("state directory not locked itself", error=str(error))
    try:
        yield
    finally:
        os.close(folder)


@contextmanager
def _lock_names(names: Iterable[Path]) -> Iterator[None]:
    """Hold the directory's names; _NameTakenError if another process does.

    A name is an address in Linux's abstract namespace, which no file system holds.
    """
    with ExitStack() as stack:
        for path in names if sys.platform == "linux" else ():
            lock = stack.enter_context(socket.socket(socket.AF_UNIX))
            name = blake2b(os.fsencode(path), digest_size=16).hexdigest()
            try:
                lock.bind(f"\0edgesim-state-{name}")
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise _NameTakenError from error
                log.warning("state directory not locked by its name", error=str(error))
        yield


class Watch:
    """Notices when what was opened under the state directory is deleted or replaced."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """The paths that are there now are watched."""
        found = {path: durable.identity(path) for path in paths}
        self._identities = {path: each for path, each in found.items() if each is not None}
        self.problem = ""
        """The first problem found; it stays, as what was written since may be lost."""

    def look(self) -> str:
        """The problem, empty if there is none; a new one is logged."""
        if not self.problem:
            try:
                for path, identity in self._identities.items():
                    durable.check_in_place(path, identity)
            except RunError as error:
                self.problem = str(error)
                log.critical("state deleted or replaced", error=self.problem)
        return self.problem


def _make_private(state: Path) -> None:
    """Make the directory, or close one that is open to others, with all that is in it.

    A directory that was there before edgesim used it, with other files in it, is left as it is, and
    so is a shared one (with the sticky bit, as /tmp) or another user's.
    """
    if not state.exists():
        durable.make_folder(state)  # 0700 by the umask
        return
    found = state.stat()
    if not found.st_mode & _OTHERS:
        return
    ours = found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX
    if not ours or not ((state / FILE).exists() or not any(state.iterdir())):
        log.warning("state directory is open to other users", state=str(state))
        return
    for folder, _, names in os.walk(state):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            _close_to_others(path)


def _close_to_others(path: Path) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode) or not mode & _OTHERS:
        return
    try:
        path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
    except PermissionError as error:
        log.warning("state file stays open to other users", file=str(path), error=str(error))


def find_owner(state: Path) -> Owner | None:
    """The process that serves this state now, or None."""
    try:
        with (state / FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _read(state)
    return None


def _read(state: Path) -> Owner | None:
    try:
        return msgspec.json.decode((state / FILE).read_bytes(), type=Owner)
    except msgspec.DecodeError:
        return None  # the owner is just writing it

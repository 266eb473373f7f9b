"""Ownership of a state directory: one process at a time, which other processes can find.

The owner holds three kinds of lock: on ``<state>/owner.json``, which contains its URL; on the
directory itself, which works for every path that leads to it; and on each of the directory's names,
which works even if the directory is deleted or replaced while the owner runs. Unlike a pid file, a
lock is released whenever its process exits, even after a crash.

The state is private to the user: events contain personal data and owner.json a token. So while a
state is owned, every file that this process and its children create is private, and permissions
that an older version left open to other users are removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from edgesim import durable
from edgesim.errors import RunError, UsageError
from edgesim.system import LINUX

FILE = "owner.json"
_OTHERS = 0o077
_CREDENTIALS = struct.Struct("iII")
"""Linux's ``ucred``: process, user, group."""

log = structlog.get_logger()


class Owner(msgspec.Struct, omit_defaults=True):
    """The process that owns the state; ``url`` is None while it does not serve.

    ``backends`` maps names to the URLs of its open stores, in the form of ``same_place``.
    """

    pid: int
    url: str | None = None
    token: str | None = None
    backends: dict[str, str] = {}


class Ownership:
    """The held lock on owner.json."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def announce(self, owner: Owner) -> None:
        """Write the owner's data to owner.json, for other processes."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(msgspec.json.encode(owner))
        self._file.flush()


@contextmanager
def own(state: Path, name: Path | None = None) -> Iterator[Ownership]:
    """Own the state directory; UsageError if another process owns it, or if it is not writable.

    ``name`` is the path that the user passed, if it differs. Until the end of the block the
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
    """Another process holds a name of the state directory."""


@contextmanager
def _lock_folder(state: Path) -> Iterator[None]:
    """Lock the directory; BlockingIOError if another process holds the lock."""
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise
    except OSError as error:  # some network file systems cannot lock directories
        log.warning("state directory not locked itself", error=str(error))
    try:
        yield
    finally:
        os.close(folder)


@contextmanager
def _lock_names(names: Iterable[Path]) -> Iterator[None]:
    """Lock the directory's names; _NameTakenError if another process holds one."""
    with ExitStack() as stack:
        for path in names:
            name = f"edgesim-state-{blake2b(os.fsencode(path), digest_size=16).hexdigest()}"
            try:
                stack.enter_context(_bound(name) if LINUX else _locked(name))
            except OSError as error:
                log.warning("state directory not locked by its name", error=str(error))
        yield


def _bound(name: str) -> socket.socket:
    """Take an address in Linux's abstract socket namespace, which has no files.

    Every user can take any address there: _NameTakenError only if a process of this user or of root
    has it, which its listening socket proves; OSError if another user has it.
    """
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0{name}")
        lock.listen()
    except OSError as error:
        lock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        if (holder := _listening_user(name)) in {0, os.geteuid()}:
            raise _NameTakenError from error
        who = "another user" if holder is None else f"user {holder}"
        raise OSError(errno.EADDRINUSE, f"{who} has taken the address @{name}") from error
    return lock


def _listening_user(name: str) -> int | None:
    """The user whose process listens at an abstract address; None if none does, or it is full."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(f"\0{name}")
        except OSError:
            return None
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    return int(user)


def _locked(name: str) -> BinaryIO:
    """Lock a file of this name in the folder for temporary files, which stays there.

    _NameTakenError if a process of this user has it; OSError if the file is another user's.
    """
    path = Path(tempfile.gettempdir(), name)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.fdopen(os.open(path, flags, 0o600), "r+b")
    try:
        if (user := os.fstat(lock.fileno()).st_uid) != os.geteuid():
            raise PermissionError(errno.EPERM, f"{path} belongs to user {user}")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise _NameTakenError from error
    except OSError:
        lock.close()
        raise
    return lock


class StateWatch:
    """Detects that opened files under the state directory have been deleted or replaced."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Watch those of the paths that exist now."""
        found = {path: durable.identity(path) for path in paths}
        self._identities = {path: each for path, each in found.items() if each is not None}
        self.problem = ""
        """First problem found; it is permanent, since data written afterwards may be lost."""

    def look(self) -> str:
        """Check the paths; return the problem, empty if there is none. A new problem is logged."""
        if not self.problem:
            try:
                for path, identity in self._identities.items():
                    durable.check_in_place(path, identity)
            except RunError as error:
                self.problem = str(error)
                log.critical("state deleted or replaced", error=self.problem)
        return self.problem


def _make_private(state: Path) -> None:
    """Create the directory, or remove other users' access to an existing one and its contents.

    A directory is left unchanged if it contained other files before edgesim used it, if it is
    shared (sticky bit, as /tmp), or if it belongs to another user.
    """
    if not state.exists():
        durable.make_folder(state)  # 0700 because of the umask
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
    """The process that owns this state now, or None."""
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
        return None  # the owner is writing it at this moment

"""Who owns a state directory: one process at a time, and the others can find it.

The owner holds a lock on ``<state>/owner.json``, which says where it serves.  A lock, unlike a pid
file, ends with its process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from edgesim import durable
from edgesim.errors import UsageError

FILE = "owner.json"


class Owner(msgspec.Struct, omit_defaults=True):
    """The process that owns the state; ``url`` is None while it does not serve."""

    pid: int
    url: str | None = None
    token: str | None = None


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
def own(state: Path) -> Iterator[Ownership]:
    """Own the state directory; UsageError if another process does, or if it cannot be written."""
    try:
        durable.make_folder(state)
        descriptor = os.open(state / FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UsageError(f"cannot use the state directory {state}: {error.strerror}") from error
    with os.fdopen(descriptor, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _read(state)
            who = f"process {owner.pid}" if owner else "another process"
            at = f" at {owner.url}" if owner and owner.url else ""
            raise UsageError(
                f"{state} is in use by {who}{at}; stop it or choose another --state"
            ) from None
        ownership = Ownership(file)
        ownership.announce(Owner(os.getpid()))
        yield ownership


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

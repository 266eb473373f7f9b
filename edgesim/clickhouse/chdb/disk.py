"""Durability of the embedded engine's files: an acknowledged statement survives a power cut.

The engine syncs nothing by default.  Its ``fsync_after_insert`` syncs the rows but not the log of
deduplication tokens, so a repeated insert doubled rows after a power cut.  One ``syncfs`` covers
rows, tokens, table definitions and directory entries, in no order; files that must be on disk
before the others are written through (``chattr +S``).  Without Linux every changed file is synced.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path
from threading import Condition

from edgesim import system
from edgesim.errors import ClickHouseError

CANNOT_FSYNC = 204
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS
_SYNC = 0x8  # FS_SYNC_FL
_HAS_NO_FLAGS = {errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM}
_State = tuple[int, int, int]
"""Inode number, size and time of modification: a file with the same ones was not changed."""


class SyncedFolder:
    """The file system of a folder, with group commit: concurrent callers share one syncfs.

    Create it before Landlock restricts the process.  Its descriptor stays open: Linux reports a
    write error once to each descriptor that was open when the error happened (Linux 5.8).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._synced: dict[Path, _State] = {}
        self._changed = Condition()
        self._running = False
        self._started = 0
        self._finished = 0
        self._failure: ClickHouseError | None = None

    def check(self) -> None:
        """Raise ClickHouseError if an earlier ``flush`` failed."""
        if self._failure is not None:
            raise self._failure

    def flush(self) -> None:
        """Return when everything written before the call is on disk.

        ClickHouseError if the kernel reports a write error, from then on for every call: the kernel
        drops pages that it could not write, so a later success would not cover them.
        """
        with self._changed:
            wanted = self._started + 1  # a sync that already runs may miss the caller's writes
            while self._finished < wanted and self._failure is None:
                if self._running:
                    self._changed.wait()
                else:
                    self._run()
        self.check()

    def write_through(self, path: Path) -> None:
        """Make writes to this file, or to new files in this folder, return only when on disk.

        Has no effect on a file system without that attribute, and on macOS.
        """
        if not system.LINUX:
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            (flags,) = struct.unpack("i", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(4)))
            if not flags & _SYNC:
                fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("i", flags | _SYNC))
        except OSError as error:
            if error.errno not in _HAS_NO_FLAGS:
                raise
        finally:
            os.close(descriptor)

    def _run(self) -> None:
        """Run one sync; called with the lock held, which is released while the kernel writes."""
        self._running = True
        self._started += 1
        self._changed.release()
        try:
            error = self._sync()
        finally:
            self._changed.acquire()
            self._running = False
            self._finished = self._started
            self._changed.notify_all()
        if error is not None:
            self._failure = self._explained(error)

    def _sync(self) -> OSError | None:
        if not system.LINUX:
            return self._sync_each()
        if self._libc.syncfs(self._descriptor) == 0:
            return None
        number = ctypes.get_errno()
        return OSError(number, os.strerror(number))

    def _sync_each(self) -> OSError | None:
        """Sync the files and folders below that have changed since their last sync."""
        synced: dict[Path, _State] = {}
        try:
            for folder, _, names in os.walk(self._folder):
                for path in (Path(folder), *(Path(folder, name) for name in names)):
                    with suppress(FileNotFoundError):  # the engine merges and removes parts
                        synced[path] = self._sync_one(path)
        except OSError as error:
            return error
        self._synced = synced
        return None

    def _sync_one(self, path: Path) -> _State:
        found = path.stat()
        state = (found.st_ino, found.st_size, found.st_mtime_ns)
        if state != self._synced.get(path):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                system.sync(descriptor)
            finally:
                os.close(descriptor)
        return state

    def _explained(self, error: OSError) -> ClickHouseError:
        return ClickHouseError(
            CANNOT_FSYNC,
            f"{self._folder} could not be written to disk: {error.strerror}; nothing more is "
            "stored there. Check the disk, mount it again, and start edgesim again",
        )


class NoDisk(SyncedFolder):
    """Disk without syncs, for virtual time, which has no power cuts."""

    def __init__(self) -> None:
        pass

    def check(self) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Return at once."""

    def write_through(self, path: Path) -> None:
        """Do nothing."""

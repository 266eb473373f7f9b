"""A disk whose power can be cut: ext4 on a loop device, shut down without writing its journal."""

import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

IMAGE_BYTES = 400_000_000
_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN
_WITHOUT_THE_LOG = 2  # FS_SHUTDOWN_FLAGS_NOLOGFLUSH


class PowerDisk:
    """A mounted file system; after ``cut`` it holds only flushed data."""

    def __init__(self, folder: Path) -> None:
        self._image = folder / "disk.img"
        self.path = folder / "disk"

    def prepare(self) -> None:
        """Make the file system and mount it; CalledProcessError if that is not possible."""
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", self._image)
        self._mount()

    def cut(self) -> None:
        """Stop all writes, as a power failure does; open files fail from now on.

        An fdatasync in progress may return 0 although its data is lost, which a machine without
        power could not do: count only what was acknowledged before the call.
        """
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_THE_LOG))
        finally:
            os.close(descriptor)

    def restore(self) -> None:
        """Mount it again; call this when the processes that used it have exited."""
        self.unmount()
        self._mount()

    def unmount(self) -> None:
        """Unmount, and retry while a process still uses it."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                _run("umount", self.path)
            except subprocess.CalledProcessError:  # a killed process has not exited yet
                time.sleep(0.05)
            else:
                return
        _run("umount", self.path)

    def _mount(self) -> None:
        _run("mount", "-o", "loop", self._image, self.path)


@contextmanager
def power_disk(folder: Path) -> Iterator[PowerDisk]:
    """A disk in ``folder``; skip if this machine or user cannot have one."""
    if os.geteuid() != 0:
        pytest.skip("a loop device needs root")
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4 on PATH (Debian: apt-get install e2fsprogs)")
    disk = PowerDisk(folder)
    try:
        disk.prepare()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop device here: {error.stderr.strip()}")
    try:
        yield disk
    finally:
        disk.unmount()


def _run(*command: object) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)

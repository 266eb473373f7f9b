"""A disk on which the damaged bytes of a log cannot be set aside until it has room."""

import errno
from pathlib import Path

import pytest

from edgesim import durable


class FullDisk:
    """While ``has_room`` is False, whole files with the suffix ``.damaged`` cannot be written."""

    has_room = False


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    """Substitute the full disk for the real one, until the test ends."""
    disk = FullDisk()
    write_file = durable.write_file

    def write_if_room(path: Path, data: bytes) -> None:
        if path.suffix == ".damaged" and not disk.has_room:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_file(path, data)

    monkeypatch.setattr(durable, "write_file", write_if_room)
    return disk


def damage(folder: Path, text: bytes) -> None:
    """Flip a bit of the only occurrence of ``text`` in the logs of a folder."""
    for file in folder.glob("*.wal"):
        data = bytearray(file.read_bytes())
        if (at := data.find(text)) >= 0:
            data[at] ^= 1
            file.write_bytes(data)
            return
    raise AssertionError(f"{text!r} is in no log of {folder}")

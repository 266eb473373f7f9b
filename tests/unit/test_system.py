"""Calls whose form depends on the operating system; macOS's are tried as far as Linux can."""

import errno
import fcntl
import os
import resource
import subprocess
import sys

import pytest

from edgesim import system

F_FULLFSYNC = 51  # macOS's number; Linux answers EINVAL, as a network drive does there


@pytest.fixture
def synced(monkeypatch):
    """Descriptors that were synced, by the name of the call."""
    calls = []

    def replace(name):
        real = getattr(os, name)

        def call(descriptor):
            calls.append((name, descriptor))
            real(descriptor)

        monkeypatch.setattr(os, name, call)

    replace("fsync")
    replace("fdatasync")
    return calls


def test_linux_writes_only_what_reading_needs(tmp_path, synced, monkeypatch):
    """Linux syncs a file's content without its times; other systems have no such call."""
    with (tmp_path / "file").open("wb") as file:
        for is_linux in (True, False):
            monkeypatch.setattr(system, "LINUX", is_linux)
            system.sync_file(file.fileno())
        assert synced == [("fdatasync", file.fileno()), ("fsync", file.fileno())]


def test_a_drive_is_asked_to_empty_its_cache(tmp_path, synced, monkeypatch):
    """Where there is F_FULLFSYNC it takes the place of fsync."""
    asked = []
    monkeypatch.setattr(system, "_FULL_SYNC", F_FULLFSYNC)
    monkeypatch.setattr(fcntl, "fcntl", lambda *arguments: asked.append(arguments))
    with (tmp_path / "file").open("wb") as file:
        system.sync(file.fileno())
        assert asked == [(file.fileno(), F_FULLFSYNC)]
    assert synced == []


def test_a_drive_that_cannot_is_synced_all_the_same(tmp_path, synced, monkeypatch):
    """A file system without F_FULLFSYNC has its files synced by fsync."""
    monkeypatch.setattr(system, "_FULL_SYNC", F_FULLFSYNC)
    with (tmp_path / "file").open("wb") as file:
        system.sync(file.fileno())
        assert synced == [("fsync", file.fileno())]


def test_a_failed_sync_is_an_error(tmp_path, synced, monkeypatch):
    """An error of the drive is raised, and no other call hides it."""

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(system, "_FULL_SYNC", F_FULLFSYNC)
    monkeypatch.setattr(fcntl, "fcntl", fail)
    with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match="Input/output"):
        system.sync(file.fileno())
    assert synced == []


def test_memory_is_in_bytes():
    """The peak of this process is between 1 MB and the memory of the machine."""
    peak = system.peak_memory_bytes(resource.getrusage(resource.RUSAGE_SELF))
    assert 1 << 20 < peak < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("value", "linux"), [(None, True), ("", True), ("0", True), ("1", False)])
def test_the_switch(value, linux):
    """EDGESIM_PORTABLE leaves Linux's features out, and is passed on to child processes."""
    environment = {} if value is None else {system.VARIABLE: value}
    code = "from edgesim import system; print(system.LINUX, system.INHERITED)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    inherited = {} if linux else environment
    assert done.stdout == f"{linux} {inherited}\n"

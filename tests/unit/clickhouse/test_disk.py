"""Durability of the embedded engine's folder: group commit, write-through and errors."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from edgesim.clickhouse.chdb.disk import CANNOT_FSYNC, SyncedFolder
from edgesim.clickhouse.chdb.limits import StatementLimits, Watchdog
from edgesim.clickhouse.chdb.process import Store
from edgesim.clickhouse.chdb.writes import Writes
from edgesim.errors import ClickHouseError


class SlowDisk(SyncedFolder):
    """A disk whose syncs last until the test releases them."""

    def __init__(self, folder, failing=()):
        super().__init__(folder)
        self.syncs = 0
        self.begun = Event()
        self.go_on = Event()
        self._failing = failing

    def _sync(self):
        self.syncs += 1
        self.begun.set()
        assert self.go_on.wait(60)
        return OSError(5, os.strerror(5)) if self.syncs in self._failing else None

    def wait_for(self, waiting):
        """Block until ``waiting`` callers wait for a sync that has not begun."""
        while True:
            with self._changed:
                if len(self._changed._waiters) == waiting:  # type: ignore[attr-defined]
                    return


def test_concurrent_callers_share_a_sync(tmp_path):
    """Ten callers that arrive during a sync share the next sync."""
    disk = SlowDisk(tmp_path)
    with ThreadPoolExecutor(11) as pool:
        first = pool.submit(disk.flush)
        assert disk.begun.wait(60)
        others = [pool.submit(disk.flush) for _ in range(10)]
        disk.wait_for(10)
        disk.go_on.set()
        for done in (first, *others):
            done.result(30)
    assert disk.syncs == 2
    disk.flush()
    assert disk.syncs == 3


def test_an_error_is_every_callers(tmp_path):
    """A failed sync fails all callers that wait for it, and all later calls."""
    disk = SlowDisk(tmp_path, failing={2})
    with ThreadPoolExecutor(11) as pool:
        first = pool.submit(disk.flush)
        assert disk.begun.wait(60)
        others = [pool.submit(disk.flush) for _ in range(10)]
        disk.wait_for(10)
        disk.go_on.set()
        first.result(30)
        for refused in others:
            with pytest.raises(ClickHouseError, match="could not be written to disk"):
                refused.result(30)
    for again in (disk.flush, disk.check):
        with pytest.raises(ClickHouseError, match="mount it again") as caught:
            again()
        assert caught.value.code == CANNOT_FSYNC


class Quiet:
    """A session of an engine in which no write has failed."""

    def query(self, _sql, _format):
        return self

    def bytes(self):
        return b"0\t1"


def test_a_change_is_on_disk_before_its_answer(tmp_path):
    """The folder is synced after a successful statement, and not after a failed one."""
    disk = SlowDisk(tmp_path, failing={2})
    disk.go_on.set()
    store = Store(tmp_path, disk, Writes(Quiet()), Watchdog(Quiet(), StatementLimits()))
    with store.change():
        assert disk.syncs == 0
    assert disk.syncs == 1
    with pytest.raises(ValueError, match="no such table"), store.change():
        raise ValueError("no such table")
    assert disk.syncs == 1
    with pytest.raises(ClickHouseError, match="could not be written to disk"), store.change():
        pass


class Failing(Quiet):
    """A session of an engine whose failed-write counter rises between two polls."""

    def __init__(self):
        self._answers = iter([b"0\t1", b"1\t1", b""])  # before, after, and no damaged part

    def bytes(self):
        return next(self._answers)


def test_a_write_that_failed_is_no_success(tmp_path):
    """A write error that only the engine's counters report fails the statement."""
    disk = SlowDisk(tmp_path)
    store = Store(tmp_path, disk, Writes(Failing()), Watchdog(Quiet(), StatementLimits()))
    with pytest.raises(ClickHouseError, match="Cannot write"), store.change():
        pass
    assert disk.syncs == 0


def test_a_real_folder_is_flushed(tmp_path):
    """Flushing a real folder succeeds."""
    (tmp_path / "file").write_text("x")
    disk = SyncedFolder(tmp_path)
    disk.flush()
    disk.check()


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no such attribute")
def test_a_file_system_without_attributes_is_taken_as_it_is():
    """A file system without file attributes, such as /proc, is accepted."""
    SyncedFolder(Path("/proc")).write_through(Path("/proc/self/"))


@pytest.fixture
def synced(monkeypatch):
    """Paths that were synced one by one, as on systems without syncfs."""
    paths = []
    real = os.fsync

    def fsync(descriptor):
        paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr("edgesim.system.LINUX", False)
    monkeypatch.setattr("os.fsync", fsync)
    return paths


def test_without_syncfs_what_has_changed_is_synced(tmp_path, synced):
    """New, longer and replaced files are synced with the folders they are in, others are not."""
    part = tmp_path / "store" / "part"
    part.mkdir(parents=True)
    for name in ("kept", "grown", "replaced", "removed"):
        (part / name).write_bytes(b"x")
    disk = SyncedFolder(tmp_path)
    disk.flush()
    folders = {tmp_path, part.parent, part}
    assert set(synced) == folders | set(part.iterdir())
    synced.clear()
    with (part / "grown").open("ab") as file:
        file.write(b"y")
    (part / "new").write_bytes(b"x")
    (part / "new").replace(part / "replaced")
    (part / "removed").unlink()
    disk.flush()
    assert set(synced) == {part, part / "grown", part / "replaced"}
    synced.clear()
    disk.flush()
    assert synced == []


def test_without_syncfs_an_error_is_reported_too(tmp_path, monkeypatch):
    """A file that cannot be synced fails the flush and all later ones."""

    def fail(_):
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr("edgesim.system.LINUX", False)
    monkeypatch.setattr("os.fsync", fail)
    disk = SyncedFolder(tmp_path)
    for _ in range(2):
        with pytest.raises(ClickHouseError, match="could not be written to disk"):
            disk.flush()

"""The simulated disk: data that a power cut may lose, and data that it must keep."""

import asyncio
import os
import random
import sqlite3
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import pytest

from edgesim import durable, faults
from edgesim.clock import Clock
from edgesim.faults.injector import Injector, KilledError
from edgesim.foreign import StoppingLoop
from edgesim.pipelines.log import WriteAheadLog
from edgesim.replay.faults.disk import SimulatedDisk
from edgesim.replay.virtual_loop import VirtualLoop

TARGETS = {
    "disk": ["disk", "disk.pipelines"],
    "platform": ["platform"],
}
SEEDS = range(40)


def outcomes(folder: Path, act: Callable[[Path], None], spec: str = "") -> set[object]:
    """Contents of the file ``data`` after ``act`` and a power cut, for all seeds; None: no file."""
    found: set[object] = set()
    for seed in SEEDS:
        top = folder / str(seed)
        top.mkdir()
        with running(top, spec, seed) as disk:
            act(top)
            disk.stop(power=True)
            disk.restore()
            data = top / "data"
            found.add(data.read_bytes() if data.is_file() else None)
    return found


class running:  # noqa: N801
    """A virtual loop on a simulated disk, for calls that do not wait."""

    def __init__(self, top: Path, spec: str = "", seed: int = 0) -> None:
        rules = faults.read(spec, TARGETS) if spec else []
        self.injector = Injector(rules, seed, Clock(0))
        self.disk = SimulatedDisk({top: "disk.pipelines"}, self.injector, seed)

    def __enter__(self) -> SimulatedDisk:
        self.loop = VirtualLoop(0, 0.0)
        assert isinstance(self.loop, StoppingLoop)
        self.loop.disk = self.disk
        asyncio._set_running_loop(self.loop)
        return self.disk

    def __exit__(self, *error: object) -> None:
        asyncio._set_running_loop(None)
        self.loop.close()


def written(top: Path, data: bytes, *, flush: bool = True, folder: bool = True) -> None:
    with FileIO(top / "data", "a") as file:
        durable.write(file, data)
        if flush:
            durable.flush(file.fileno(), Path(str(file.name)))
    if folder:
        durable.flush_folder(top)


def test_what_was_flushed_with_its_name_is_there(tmp_path):
    """Content with flushed file and folder survives a power cut."""
    assert outcomes(tmp_path, lambda top: written(top, b"x" * 2000)) == {b"x" * 2000}


def test_content_that_was_not_flushed_may_be_lost_in_part(tmp_path):
    """Content that was not flushed may be kept, lost, cut short or have holes."""
    found = outcomes(tmp_path, lambda top: written(top, b"x" * 700, flush=False))
    assert {b"", b"x" * 700} < found
    assert any(isinstance(each, bytes) and b"x" in each and b"\0" in each for each in found)


def test_a_name_that_was_not_flushed_may_be_lost(tmp_path):
    """A flushed file may be lost if its folder was not flushed."""
    assert outcomes(tmp_path, lambda top: written(top, b"x", folder=False)) == {None, b"x"}


def test_a_file_that_was_removed_may_come_back(tmp_path):
    """A removed file may come back until its folder is flushed."""

    def act(top):
        written(top, b"x")
        durable.remove(top / "data")

    assert outcomes(tmp_path, act) == {None, b"x"}


def test_the_flushed_beginning_of_a_file_stays(tmp_path):
    """A power cut may lose appended content, but not the content flushed before it."""

    def act(top):
        written(top, b"x" * 1000)
        written(top, b"y" * 3000, flush=False)

    found = outcomes(tmp_path, act)
    assert all(isinstance(each, bytes) and each.startswith(b"x" * 1000) for each in found)
    assert len(found) > 2


def test_a_folder_that_was_not_flushed_takes_its_files_along(tmp_path):
    """Flushed files may be lost with their folder if its name was not flushed."""

    def act(top):
        (top / "sub").mkdir()
        with FileIO(top / "sub" / "inner", "a") as file:
            durable.write(file, b"x")
            durable.flush(file.fileno(), Path(str(file.name)))
        durable.flush_folder(top / "sub")

    for seed in SEEDS:
        top = tmp_path / str(seed)
        top.mkdir()
        with running(top, seed=seed) as disk:
            act(top)
            disk.stop(power=True)
            disk.restore()
        if not (top / "sub").exists():
            return
    pytest.fail("the folder was there every time")


def test_folders_of_the_stores_are_durable_with_their_parents(tmp_path):
    """A folder made by durable.make_folder survives with its parents."""

    def act(top):
        durable.make_folder(top / "a" / "b")

    for seed in SEEDS:
        top = tmp_path / str(seed)
        top.mkdir()
        with running(top, seed=seed) as disk:
            act(top)
            disk.stop(power=True)
            disk.restore()
        assert (top / "a" / "b").is_dir()


def test_a_failed_flush_loses_what_a_second_one_does_not_bring_back(tmp_path):
    """A flush after a failed one may not store the lost pages, as on Linux."""
    spec = "disk failed-fsync 100%"
    found = set()
    for seed in SEEDS:
        top = tmp_path / str(seed)
        top.mkdir()
        with running(top, spec, seed) as disk:
            with FileIO(top / "data", "a") as file:
                durable.write(file, b"x" * 100)
                with pytest.raises(OSError, match="Input/output error"):
                    durable.flush(file.fileno(), Path(str(file.name)))
                with disk._injector.calm():
                    durable.flush(file.fileno(), Path(str(file.name)))
                    durable.flush_folder(top)
            disk.stop(power=True)
            disk.restore()
            found.add((top / "data").read_bytes() == b"x" * 100)
    assert False in found


@pytest.mark.parametrize("flush_name", [True, False])
def test_a_folder_that_was_left_without_a_flush_is_durable_once_it_is_used(tmp_path, flush_name):
    """make_folder flushes an existing folder again, as its creator may have failed to."""
    for seed in SEEDS:
        top = tmp_path / str(seed)
        top.mkdir()
        with running(top, seed=seed) as disk:
            (top / "a" / "b").mkdir(parents=True)
            if flush_name:
                durable.flush_folder(top / "a")
            durable.make_folder(top / "a" / "b")
            disk.stop(power=True)
            disk.restore()
        assert (top / "a" / "b").is_dir()


def test_a_log_that_was_left_without_its_name_flushed_is_durable_once_it_is_used(tmp_path):
    """Opening an existing log flushes its folder, as its creator may have been killed before."""
    for seed in SEEDS:
        top = tmp_path / str(seed)
        top.mkdir()
        with running(top, seed=seed) as disk:
            log = WriteAheadLog(top)
            segment = log.current(5.0, "key")
            data = segment.path.read_bytes()
            log.close()
            durable.remove(segment.path)
            durable.flush_folder(top)
            descriptor = durable.create(segment.path)  # the killed process got this far
            durable.write_at(descriptor, segment.path, data, 0)
            durable.flush(descriptor, segment.path)
            again = WriteAheadLog(top)
            assert again.open is not None
            again.open.append(b"{}\n", 1)
            disk.stop(power=True)
            again.close()
            os.close(descriptor)
            disk.restore()
        assert segment.path.is_file()


def test_folders_above_the_disk_are_no_durable_steps(tmp_path):
    """A fault does not depend on the depth of the state folder: parents are no durable steps."""
    with running(tmp_path, "disk lying-fsync 100%") as disk:
        durable.make_folder(tmp_path / "a")
    assert {fired.where for fired in disk._injector.fired} == {
        "disk flush state/",
        f"disk flush {tmp_path.name}/",
    }


def test_a_lying_flush_promises_what_may_be_lost(tmp_path):
    """A lying flush succeeds, but the data may be lost."""
    found = outcomes(tmp_path, lambda top: written(top, b"x"), "disk lying-fsync 100%")
    assert None in found


def test_what_a_lie_has_cost_is_known(tmp_path):
    """Damage by a lying flush is counted in lines of the lost writes, and of no others."""
    for seed in SEEDS:
        top = tmp_path / str(seed)
        top.mkdir()
        with running(top, seed=seed) as disk:
            written(top, b"one\n" * 300)
            disk._injector.add(faults.read("disk.pipelines lying-fsync 100%", TARGETS))
            written(top, b"two\ntwo\n" * 300)
            disk.stop(power=True)
            disk.restore()
            data = (top / "data").read_bytes()
        assert data.startswith(b"one\n" * 300)
        is_whole = data == b"one\n" * 300 + b"two\ntwo\n" * 300
        assert disk.medium.damaged == ({} if is_whole else {top / "data": 600})
        assert disk.medium.cuts["promise broken"] == (not is_whole)


def test_what_was_never_promised_is_not_forgiven(tmp_path):
    """Data that was not flushed, or whose name was not, does not count as damage."""
    for seed in SEEDS:
        top = tmp_path / str(seed)
        top.mkdir()
        with running(top, seed=seed) as disk:
            written(top, b"x\n", flush=seed % 2 == 0, folder=False)
            disk.stop(power=True)
            disk.restore()
        assert not disk.medium.damaged


def test_a_full_disk_takes_a_part(tmp_path):
    """On a full disk a write fails with ENOSPC after a part of it."""
    with running(tmp_path, "disk full 100%"), FileIO(tmp_path / "data", "a") as file:
        with pytest.raises(OSError, match="No space left"):
            durable.write(file, b"x" * 1000)
        assert (tmp_path / "data").stat().st_size < 1000


def test_a_flipped_bit_is_charged_to_the_write_that_it_hit(tmp_path):
    """A flipped bit is charged with the number of lines of its write."""
    with running(tmp_path) as disk:
        written(tmp_path, b"one\ntwo\n")
        written(tmp_path, b"three\n")
        before = (tmp_path / "data").read_bytes()
        assert disk.flip_bit("disk.pipelines", random.Random(1))
        after = (tmp_path / "data").read_bytes()
    [at] = [n for n, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert disk.medium.damaged == {tmp_path / "data": 2 if at < 8 else 1}


@pytest.mark.parametrize(("level", "kept"), [("FULL", {True}), ("NORMAL", {True, False})])
def test_a_commit_is_durable_at_synchronous_full_only(tmp_path, level, kept):
    """A commit is durable with synchronous=FULL; with NORMAL a power cut may lose it."""
    found = set()
    for seed in SEEDS:
        top = tmp_path / str(seed)
        top.mkdir()
        with running(top, seed=seed) as disk:
            database = durable.connect(top / "a.db", isolation_level="IMMEDIATE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            with database:
                database.execute("CREATE TABLE t (x)")
            database.execute(f"PRAGMA synchronous = {level}")
            with database:
                database.execute("INSERT INTO t VALUES (1)")
            disk.stop(power=True)
            database.close()
            disk.restore()
        with sqlite3.connect(top / "a.db") as after:
            found.add(after.execute("SELECT count(*) FROM t").fetchone() == (1,))
        after.close()
    assert found == kept


def test_a_database_that_is_not_open_yet_keeps_what_it_committed(tmp_path):
    """Commits survive a power cut during a start, before the database is opened."""
    file = tmp_path / "a.db"
    for seed in SEEDS[:8]:
        file.unlink(missing_ok=True)
        run = running(tmp_path, seed=seed)
        run.disk = SimulatedDisk({file: "disk.pipelines"}, run.injector, seed)
        with run as disk:
            database = durable.connect(file)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("CREATE TABLE t (x)")
            disk.stop(power=False)
            database.close()
            disk.restore()
            durable.flush_folder(tmp_path)
            disk.stop(power=True)
            disk.restore()
        after = sqlite3.connect(file)
        assert after.execute("SELECT count(*) FROM t").fetchone() == (0,)
        after.close()


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_kill_hits_just_after_a_durable_step(tmp_path, step):
    """A kill strikes after the Nth durable step (flush, folder, commit); later calls fail."""
    stopped = []

    def stop(rule):
        stopped.append(rule)
        run.disk.stop(power=False)

    run = running(tmp_path, f"platform kill after {step} steps")
    run.injector.stop = stop

    def act():
        written(tmp_path, b"x")
        durable.connect(tmp_path / "a.db").execute("CREATE TABLE t (x)")
        pytest.fail("it went on")

    with run, pytest.raises(KilledError):
        act()
    assert len(stopped) == 1
    with pytest.raises(KilledError):
        run.disk.flush_folder(tmp_path)


def test_what_a_dying_platform_still_does_has_no_effect(tmp_path):
    """Changes by a platform after its kill, such as clean-up, are undone."""
    with running(tmp_path) as disk:
        written(tmp_path, b"x")
        disk.stop(power=False)
        (tmp_path / "data").unlink()
        (tmp_path / "more").write_bytes(b"y")
        disk.restore()
    assert {path.name for path in tmp_path.iterdir()} == {"data"}

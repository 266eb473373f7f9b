"""The write-ahead log keeps exactly the acknowledged records after a crash."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesim import durable
from edgesim.errors import RunError
from edgesim.pipelines.log import Segment, WriteAheadLog
from edgesim.pipelines.segment import RowChunk

KEY = "event_date=2026-01-31/hr=12/01.json.gz"
LINES = st.lists(st.integers(0, 99).map(lambda n: b'{"n":%d}\n' % n), min_size=1, max_size=8)


def segments(log: WriteAheadLog) -> list[Segment]:
    """All windows of a log, the open one last."""
    return [*log.sealed, *log.unsealed, *([log.open] if log.open else [])]


def kept(log: WriteAheadLog) -> list[bytes]:
    return [line for segment in segments(log) for line in segment.lines()]


@pytest.mark.parametrize("is_recovered", [False, True])
def test_chunks_have_the_number_of_their_records(tmp_path, is_recovered):
    """Each append is a chunk, with so many records; also after a restart."""
    log = WriteAheadLog(tmp_path)
    written = [RowChunk(b'{"n":1}\n' * rows, rows) for rows in (3, 1, 70)]
    for chunk in written:
        log.append(0.0, KEY, *chunk)
    if is_recovered:
        log.close()
        log = WriteAheadLog(tmp_path)
    [segment] = segments(log)
    assert list(segment.chunks()) == written
    segment.append(b'{"n":2}\n' * 2, 2)
    assert list(segment.chunks()) == [*written, RowChunk(b'{"n":2}\n' * 2, 2)]
    log.close()


@settings(deadline=None, max_examples=60)
@given(LINES, st.data())
def test_any_torn_tail_costs_only_what_was_never_acknowledged(batches, data):
    """A file that is cut anywhere keeps its whole frames and accepts new ones."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = WriteAheadLog(folder)
        ends = []
        for batch in batches:
            log.current(0.0, KEY).append(batch, 1)
            ends.append(log.current(0.0).path.stat().st_size)
        path = log.current(0.0).path
        log.current(0.0).release()
        cut = data.draw(st.integers(0, ends[-1]))
        path.write_bytes(path.read_bytes()[:cut])

        recovered = WriteAheadLog(folder)
        whole = sum(end <= cut for end in ends)
        assert kept(recovered) == batches[:whole]
        recovered.current(0.0, KEY).append(b'{"new":1}\n', 1)
        recovered.close()
        assert kept(WriteAheadLog(folder)) == [*batches[:whole], b'{"new":1}\n']


def test_a_sealed_segment_keeps_its_key_and_takes_no_more(tmp_path):
    """A sealed segment keeps its key after a restart; a new window uses another segment."""
    log = WriteAheadLog(tmp_path)
    log.current(1.0).append(b"{}\n", 1)
    log.seal("k")
    log.current(2.0, KEY).append(b"{}\n{}\n", 2)
    log.close()
    recovered = WriteAheadLog(tmp_path)
    assert [segment.seal and segment.seal.key for segment in recovered.sealed] == ["k"]
    assert recovered.open is not None
    assert recovered.open.rows == 2
    assert recovered.open.opened_at == 2.0


def test_forgotten_segments_are_gone(tmp_path):
    """A forgotten segment leaves no file."""
    log = WriteAheadLog(tmp_path)
    log.current(1.0).append(b"{}\n", 1)
    log.forget(log.seal("k"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\x01", b"garbage that is no frame at all"])
def test_a_file_without_a_whole_header_is_set_aside(tmp_path, content):
    """A file without a complete header is no window; it is renamed to .broken and kept."""
    (tmp_path / "000000000001.wal").write_bytes(content)
    log = WriteAheadLog(tmp_path)
    assert log.open is None
    assert [file.name for file in tmp_path.iterdir()] == ["000000000001.broken"]


class Life:
    """A log with its expected state: acknowledged records by window, and objects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = WriteAheadLog(folder)
        self.open: list[bytes] = []
        self.sealed: dict[str, list[bytes]] = {}
        self.written: dict[str, list[bytes]] = {}
        self.count = 0

    def append(self) -> None:
        self.count += 1
        line = b'{"n":%d}\n' % self.count
        self.log.current(0.0, f"k{self.count}").append(line, 1)
        self.open.append(line)

    def seal(self) -> None:
        if self.open:
            self.sealed[self.log.seal().key] = self.open
            self.open = []

    def write(self) -> None:
        """Write the oldest sealed window as an object and forget it."""
        if self.log.sealed:
            segment = self.log.sealed[0]
            self.store(segment)
            self.log.forget(segment)

    def store(self, segment: Segment) -> None:
        self.written.setdefault(segment.key, list(segment.lines()))

    def release(self) -> None:
        if self.log.open is not None:
            self.log.open.release()


STEPS = st.lists(st.sampled_from(["append", "append", "append", "seal", "write"]), max_size=25)


@settings(deadline=None, max_examples=150)
@given(STEPS, st.sampled_from(["append", "seal", "none"]), st.data())
def test_a_crash_at_any_byte_keeps_what_was_acknowledged_and_doubles_nothing(steps, last, data):
    """Crash in the last write at any byte, with or without garbage, after any steps.

    Then every acknowledged record is in the log or in exactly one object, no torn record appears,
    and sealed windows keep their key and their records.
    """
    with tempfile.TemporaryDirectory() as name:
        life = Life(Path(name))
        for step in steps:
            getattr(life, step)()
        life.append()
        before = life.log.current(0.0).path.read_bytes()
        acknowledged = list(life.open)
        path = life.log.current(0.0).path
        if last != "none":
            getattr(life, last)()
        life.release()
        written = path.read_bytes()
        torn = bytearray(written[: data.draw(st.integers(len(before), len(written)))])
        whole = len(torn) == len(written)
        if len(torn) > len(before) and data.draw(st.booleans()):  # the disk wrote something else
            torn[data.draw(st.integers(len(before), len(torn) - 1))] ^= 0xFF
            whole = False
        path.write_bytes(torn)

        log = WriteAheadLog(Path(name))
        [newest] = [each for each in segments(log) if each.path == path]
        if last == "seal" and whole:
            assert list(newest.lines()) == acknowledged
            assert log.open is None
        else:
            added = life.open[-1:] if last == "append" and whole else []
            assert list(newest.lines()) == [*acknowledged, *added]
        for segment in segments(log):
            life.store(segment)
        everything = [line for lines in life.written.values() for line in lines]
        assert sorted(everything) == sorted(set(everything))
        assert everything.count(acknowledged[-1]) == 1
        promised = [line for lines in life.sealed.values() for line in lines] + acknowledged
        assert set(promised) <= set(everything)


def test_numbers_are_not_used_again(tmp_path):
    """A segment that was set aside keeps its number; the next segment has a higher one."""
    (tmp_path / "000000000007.wal").write_bytes(b"garbage")
    log = WriteAheadLog(tmp_path)
    log.current(0.0).append(b"{}\n", 1)
    log.current(0.0).release()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "000000000007.broken",
        "000000000008.wal",
    ]


def test_a_file_whose_sync_failed_is_replaced(tmp_path, monkeypatch):
    """After a failed sync the acknowledged records move to a new file; the failed ones do not."""
    log = WriteAheadLog(tmp_path)
    log.current(0.0, KEY).append(b'{"n":1}\n', 1)
    suspect = log.current(0.0).path.stat().st_ino

    def fail(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("edgesim.system.sync_file", fail)
        patch.setattr("os.ftruncate", fail)
        for number in (2, 3):
            with pytest.raises(RunError, match="Input/output error"):
                log.current(0.0).append(b'{"n":%d}\n' % number, 1)
    log.current(0.0).append(b'{"n":4}\n', 1)
    assert log.current(0.0).path.stat().st_ino != suspect
    log.close()
    assert kept(WriteAheadLog(tmp_path)) == [b'{"n":1}\n', b'{"n":4}\n']


def test_half_a_frame_that_could_not_be_cut_off_hides_nothing(tmp_path, monkeypatch):
    """A torn frame that could not be truncated on a full disk costs no other record."""
    log = WriteAheadLog(tmp_path)
    log.current(0.0, KEY).append(b'{"n":1}\n', 1)
    write_at = durable.write_at

    def half(descriptor: int, path: Path, data: bytes, offset: int) -> None:
        write_at(descriptor, path, data[: len(data) // 2], offset)
        raise OSError(28, "No space left on device")

    def fail(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("edgesim.durable.write_at", half)
        patch.setattr("edgesim.durable.truncate", fail)
        with pytest.raises(RunError, match="No space left"):
            log.current(0.0).append(b'{"n":"%s"}\n' % (b"x" * 500), 1)
    log.close()
    recovered = WriteAheadLog(tmp_path)
    assert kept(recovered) == [b'{"n":1}\n']
    recovered.current(0.0).append(b'{"n":3}\n', 1)
    recovered.close()
    assert kept(WriteAheadLog(tmp_path)) == [b'{"n":1}\n', b'{"n":3}\n']


@pytest.mark.parametrize("way", ["file", "folder", "parent", "file replaced", "folder replaced"])
def test_a_log_that_is_deleted_or_replaced_takes_no_more(tmp_path, way):
    """An append fails once the log's path is gone or replaced; earlier records stay readable."""
    folder = tmp_path / "state" / "events"
    log = WriteAheadLog(folder)
    log.current(0.0, KEY).append(b'{"n":1}\n', 1)
    path = log.current(0.0).path
    match way:
        case "file":
            path.unlink()
        case "folder":
            shutil.rmtree(folder)
        case "parent":
            folder.parent.rename(tmp_path / "moved")
        case "file replaced":
            copy = tmp_path / "copy"
            shutil.copy(path, copy)
            copy.rename(path)
        case _:
            shutil.copytree(folder, tmp_path / "copy")
            folder.rename(tmp_path / "moved")
            (tmp_path / "copy").rename(folder)
    for _ in range(2):
        with pytest.raises(RunError, match="deleted or replaced"):
            log.current(0.0, KEY).append(b'{"n":2}\n', 1)
    assert kept(log) == [b'{"n":1}\n']
    assert list(log.seal().lines()) == [b'{"n":1}\n']
    if "folder" in way or way == "parent":
        with pytest.raises(RunError, match="deleted or replaced"):
            log.current(0.0, KEY)


def test_a_large_log_is_recovered_in_pieces(tmp_path):
    """A recovery reads at most two megabytes of frames between two yields."""
    log = WriteAheadLog(tmp_path)
    line = b'{"n":"%s"}\n' % (b"x" * 100_000)
    for _ in range(100):
        log.current(0.0, KEY).append(line, 1)
    log.close()
    recovered = WriteAheadLog(tmp_path, 0)
    pieces = 0
    for _ in recovered.recover():
        assert recovered.waiting  # its records are counted all the time
        pieces += 1
    assert pieces >= 100 * len(line) // 2_000_000
    assert not recovered.waiting
    assert recovered.open
    assert recovered.open.rows == 100

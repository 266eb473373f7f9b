"""Damage to a pipeline log costs only the damaged records, and never the window's key."""

import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesim.pipelines import frames
from edgesim.pipelines.log import Segment, WriteAheadLog

KEY = "raw/event_date=2026-01-31/hr=12/01JQZXW3E8.json.gz"
SECTOR = 128
"""Bytes damaged at once; smaller than a disk's sector, as the test logs are small."""


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch):
    """Disable syncs: no test in this file is about power cuts."""
    monkeypatch.setattr("edgesim.durable.flush", lambda *_: None)
    monkeypatch.setattr("edgesim.durable.flush_folder", lambda _: None)


def line(number: int) -> bytes:
    return b'{"n":%d,"text":"%s"}\n' % (number, b"x" * (number * 7 % 90))


def written(folder: Path, sends: int, *, is_sealed: bool, key: str = KEY) -> tuple[Path, list[int]]:
    """Write a log; return its file and the end offset of its header and of each records frame."""
    log = WriteAheadLog(folder)
    segment = log.current(5.0, key)
    ends = [segment.path.stat().st_size]
    for number in range(sends):
        segment.append(line(number), 1)
        ends.append(segment.path.stat().st_size)
    if is_sealed:
        log.seal()
    log.close()
    return segment.path, ends


def recovered(path: Path, content: bytes) -> tuple[list[bytes], list[Segment], WriteAheadLog]:
    """Recover a log whose only file has that content; return its records, windows and the log."""
    for file in path.parent.iterdir():
        file.unlink()
    path.write_bytes(content)
    log = WriteAheadLog(path.parent)
    segments = [*log.sealed, *log.unsealed, *([log.open] if log.open else [])]
    return [each for segment in segments for each in segment.lines()], segments, log


def takes_more(path: Path, log: WriteAheadLog, lines: list[bytes]) -> bool:
    """True if a record appended after the recovery is read by the next one, exactly once."""
    log.current(9.0, "another").append(b'{"new":1}\n', 1)
    log.close()
    again = WriteAheadLog(path.parent)
    segments = [*again.sealed, *again.unsealed, *([again.open] if again.open else [])]
    found = [each for segment in segments for each in segment.lines()]
    again.close()
    return found == [*lines, b'{"new":1}\n']


@pytest.mark.parametrize("is_sealed", [False, True])
def test_a_flipped_bit_costs_one_frame_at_most(tmp_path, is_sealed):
    """A flipped bit at any byte loses at most the record of its frame; the key is kept."""
    path, ends = written(tmp_path, 5, is_sealed=is_sealed)
    content = path.read_bytes()
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << (at % 8)
        hit = sum(end <= at for end in ends) - 1
        expected = [line(number) for number in range(5) if number != hit]
        lines, segments, log = recovered(path, bytes(damaged))
        assert lines == expected, at
        assert [segment.key for segment in segments] == [KEY]
        assert takes_more(path, log, lines), at


@pytest.mark.parametrize("is_sealed", [False, True])
def test_a_cut_file_keeps_its_whole_frames(tmp_path, is_sealed):
    """A file that is cut at any byte, with zeros or garbage after it, keeps its whole frames."""
    path, ends = written(tmp_path, 5, is_sealed=is_sealed)
    content = path.read_bytes()
    for cut in range(ends[0], len(content) + 1):
        tail = (b"", bytes(4096), b"\xa5" * 700)[cut % 3]
        lines, segments, log = recovered(path, content[:cut] + tail)
        assert lines == [line(number) for number in range(5) if ends[number + 1] <= cut], cut
        assert [segment.key for segment in segments] == [KEY]
        assert takes_more(path, log, lines), cut


def test_damaged_bytes_are_set_aside(tmp_path, capsys):
    """Damage is logged with file, offset and size, and its bytes are copied to a file beside."""
    path, ends = written(tmp_path, 5, is_sealed=True)
    damaged = bytearray(path.read_bytes())
    damaged[ends[2] - 3] ^= 0x04
    _, [segment], log = recovered(path, bytes(damaged))
    [aside] = tmp_path.glob("*.damaged")
    assert aside.read_bytes() == damaged[ends[1] : ends[2]]
    said = capsys.readouterr().out
    assert "pipeline log damaged" in said
    for each in (path.name, str(ends[1]), str(ends[2] - ends[1]), aside.name):
        assert each in said
    assert "pipeline log lost records" in said
    log.forget(segment)
    assert list(tmp_path.iterdir()) == [aside]


def test_bytes_damaged_while_the_window_is_open_are_set_aside(tmp_path, capsys):
    """Damage of an open window is reported as at a start; the other records are read."""
    log = WriteAheadLog(tmp_path)
    segment = log.current(5.0, KEY)
    ends = [segment.path.stat().st_size]
    for number in range(3):
        segment.append(line(number), 1)
        ends.append(segment.path.stat().st_size)
    damaged = bytearray(segment.path.read_bytes())
    damaged[ends[2] - 3] ^= 0x04
    segment.path.write_bytes(damaged)
    assert list(segment.lines()) == [line(0), line(2)]
    [aside] = tmp_path.glob("*.damaged")
    assert aside.read_bytes() == damaged[ends[1] : ends[2]]
    said = capsys.readouterr().out
    for each in ("pipeline log damaged, records lost", str(ends[1]), aside.name):
        assert each in said
    log.seal()
    log.forget(segment)
    assert list(tmp_path.iterdir()) == [aside]


Damage = Callable[[bytearray, int, bytes], None]


def flip(content: bytearray, at: int, other: bytes) -> None:
    content[at] ^= 1 << (at % 8)


def zero(content: bytearray, at: int, other: bytes) -> None:
    content[at : at + SECTOR] = bytes(len(content[at : at + SECTOR]))


def garbage(content: bytearray, at: int, other: bytes) -> None:
    size = len(content[at : at + SECTOR])
    content[at : at + size] = (b"\xff\x00WL2\x02" * SECTOR)[:size]


def misdirected(content: bytearray, at: int, other: bytes) -> None:
    """Overwrite a block with the same block of another log's file."""
    block = other[at : at + SECTOR]
    content[at : at + len(block)] = block


def doubled(content: bytearray, at: int, other: bytes) -> None:
    """Overwrite two blocks with the first two blocks of the file."""
    size = len(content[at : at + 2 * SECTOR])
    content[at : at + size] = content[:size]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from([flip, zero, garbage, misdirected, doubled]), st.floats(0, 1)),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_damage_of_any_kind_costs_only_the_frames_it_hits(damages, is_sealed):
    """Records of undamaged frames are kept, once, in order, under the window's key."""
    with tempfile.TemporaryDirectory() as name:
        path, ends = written(Path(name) / "a", 12, is_sealed=is_sealed)
        other, _ = written(Path(name) / "b", 12, is_sealed=is_sealed, key=KEY[:-9] + "4.json.gz")
        content = path.read_bytes()
        damaged = bytearray(content)
        for damage, where in damages:
            damage(damaged, int(where * (len(content) - 1)), other.read_bytes())
        lines, segments, _ = recovered(path, bytes(damaged))
        intact = [
            line(number)
            for number in range(12)
            if content[ends[number] : ends[number + 1]] == damaged[ends[number] : ends[number + 1]]
        ]
        assert set(intact) <= set(lines)
        numbers = [number for number in range(12) if line(number) in lines]
        assert lines == [line(number) for number in numbers]
        if lines:
            assert {segment.key for segment in segments} == {KEY}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 11), st.integers(1, 400))
def test_missing_bytes_cost_only_their_frames(number, missing):
    """Bytes that are cut out of a file cost only the frames that lost bytes."""
    with tempfile.TemporaryDirectory() as name:
        path, ends = written(Path(name), 12, is_sealed=True)
        content = path.read_bytes()
        end = min(ends[number] + missing, ends[-1])
        lines, _, _ = recovered(path, content[: ends[number]] + content[end:])
        assert lines == [line(each) for each in range(12) if each < number or ends[each] >= end]


def test_frames_of_an_earlier_life_of_the_file_are_not_taken(tmp_path):
    """Frames left in the file by an earlier window are not read as this window's."""
    first, ends = written(tmp_path, 6, is_sealed=True, key="earlier")
    content = first.read_bytes()
    log = WriteAheadLog(tmp_path)
    log.forget(log.sealed[0])
    path, later_ends = written(tmp_path, 3, is_sealed=False, key="laterer")
    assert path == first
    assert ends[:4] == later_ends
    lines, [segment], _ = recovered(path, path.read_bytes() + content[ends[3] :])
    assert segment.key == "laterer"
    assert lines == [line(number) for number in range(3)]


OLD_HEAD = struct.Struct(">BII")


def old_frame(kind: int, payload: bytes) -> bytes:
    return OLD_HEAD.pack(kind, len(payload), zlib.crc32(payload, kind)) + payload


def old_log(*, is_sealed: bool) -> tuple[bytes, list[int]]:
    """A file of format version 1 with five records, and the end offsets of its frames."""
    pieces = [old_frame(frames.HEADER, b'{"opened_at":7.5}')]
    pieces += [old_frame(frames.RECORDS, line(number)) for number in range(5)]
    ends = [sum(map(len, pieces[: count + 1])) for count in range(6)]
    if is_sealed:
        pieces.append(old_frame(frames.SEAL, b'{"key":"old","rows":5}'))
    return b"".join(pieces), ends


def test_a_log_of_the_first_version_is_read(tmp_path):
    """A sealed version 1 log keeps its key; an open one is closed and gets its key at the seal."""
    path = tmp_path / "000000000004.wal"
    every = [line(number) for number in range(5)]
    lines, [segment], log = recovered(path, old_log(is_sealed=True)[0])
    assert (lines, segment.key, segment.rows) == (every, "old", 5)
    lines, [segment], log = recovered(path, old_log(is_sealed=False)[0])
    assert (lines, log.unsealed, segment.opened_at) == (every, [segment], 7.5)
    log.current(9.0, "next").append(b'{"new":1}\n', 1)
    log.seal("chosen")
    log.close()
    again = WriteAheadLog(tmp_path)
    assert [each.key for each in again.sealed] == ["chosen"]
    assert list(again.sealed[0].lines()) == every
    assert again.open
    assert list(again.open.lines()) == [b'{"new":1}\n']


@pytest.mark.parametrize("is_sealed", [False, True])
def test_a_flipped_byte_in_the_first_version_costs_one_frame(tmp_path, is_sealed):
    """In format version 1 a flipped byte loses at most the record of its frame."""
    content, ends = old_log(is_sealed=is_sealed)
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 0x10
        hit = sum(end <= at for end in ends) - 1
        lines, _, log = recovered(tmp_path / "000000000001.wal", bytes(damaged))
        log.close()
        assert lines == [line(number) for number in range(5) if number != hit], at

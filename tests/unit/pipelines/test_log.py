"""The write-ahead log: what a crash leaves is what was acknowledged."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesim.errors import RunError
from edgesim.pipelines.log import Log, Segment

LINES = st.lists(st.integers(0, 99).map(lambda n: b'{"n":%d}\n' % n), min_size=1, max_size=8)


def kept(log: Log) -> list[bytes]:
    return [] if log.open is None else list(log.open.lines())


@settings(deadline=None, max_examples=60)
@given(LINES, st.data())
def test_any_torn_tail_costs_only_what_was_never_acknowledged(batches, data):
    """Cut the file anywhere: whole frames stay, the torn one goes, the log can be written on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = Log(folder)
        ends = []
        for batch in batches:
            log.current(0.0).append(batch, 1)
            ends.append(log.current(0.0).path.stat().st_size)
        path = log.current(0.0).path
        log.current(0.0).release()
        cut = data.draw(st.integers(0, ends[-1]))
        path.write_bytes(path.read_bytes()[:cut])

        recovered = Log(folder)
        whole = sum(end <= cut for end in ends)
        assert kept(recovered) == batches[:whole]
        recovered.current(0.0).append(b'{"new":1}\n', 1)
        recovered.current(0.0).release()
        assert kept(Log(folder)) == [*batches[:whole], b'{"new":1}\n']


@settings(deadline=None, max_examples=60)
@given(LINES, st.data())
def test_a_flipped_byte_ends_the_log_there(batches, data):
    """A frame whose checksum is wrong, and everything behind it, is not taken for records."""
    with tempfile.TemporaryDirectory() as name:
        log = Log(Path(name))
        for batch in batches:
            log.current(0.0).append(batch, 1)
        path = log.current(0.0).path
        log.current(0.0).release()
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 0xFF
        path.write_bytes(content)
        recovered = kept(Log(Path(name)))
        assert recovered == batches[: len(recovered)]
        assert len(recovered) < len(batches)


def test_a_sealed_segment_keeps_its_key_and_takes_no_more(tmp_path):
    """After a seal the key is remembered and a new window begins in another segment."""
    log = Log(tmp_path)
    log.current(1.0).append(b"{}\n", 1)
    log.seal("k")
    log.current(2.0).append(b"{}\n{}\n", 2)
    log.current(2.0).release()
    recovered = Log(tmp_path)
    assert [segment.seal and segment.seal.key for segment in recovered.sealed] == ["k"]
    assert recovered.open is not None
    assert recovered.open.rows == 2
    assert recovered.open.opened_at == 2.0


def test_forgotten_segments_are_gone(tmp_path):
    """A segment whose object is durable leaves no file."""
    log = Log(tmp_path)
    log.current(1.0).append(b"{}\n", 1)
    log.forget(log.seal("k"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\x01", b"garbage that is no frame at all"])
def test_a_file_without_a_whole_header_is_set_aside(tmp_path, content):
    """A segment that died while it was created is no window; what it is stays to be looked at."""
    (tmp_path / "000000000001.wal").write_bytes(content)
    log = Log(tmp_path)
    assert log.open is None
    assert [file.name for file in tmp_path.iterdir()] == ["000000000001.broken"]


class Life:
    """A log, and what its user was told: acknowledged records by window, and their objects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = Log(folder)
        self.open: list[bytes] = []
        self.sealed: dict[str, list[bytes]] = {}
        self.written: dict[str, list[bytes]] = {}
        self.count = 0

    def append(self) -> None:
        self.count += 1
        line = b'{"n":%d}\n' % self.count
        self.log.current(0.0).append(line, 1)
        self.open.append(line)

    def seal(self) -> None:
        if self.open:
            key = f"k{self.count}"
            self.log.seal(key)
            self.sealed[key] = self.open
            self.open = []

    def write(self) -> None:
        """The oldest sealed window becomes its object, and is forgotten."""
        if self.log.sealed:
            segment = self.log.sealed[0]
            self.store(segment)
            self.log.forget(segment)

    def store(self, segment: Segment) -> None:
        assert segment.seal is not None
        self.written.setdefault(segment.seal.key, list(segment.lines()))

    def release(self) -> None:
        if self.log.open is not None:
            self.log.open.release()


STEPS = st.lists(st.sampled_from(["append", "append", "append", "seal", "write"]), max_size=25)


@settings(deadline=None, max_examples=150)
@given(STEPS, st.sampled_from(["append", "seal", "none"]), st.data())
def test_a_crash_at_any_byte_keeps_what_was_acknowledged_and_doubles_nothing(steps, last, data):
    """Whatever was done before, die within the last write, at any byte, with any rubbish there.

    Then: every acknowledged record is in the log or in exactly one object, no torn one appears,
    and objects that were decided on keep their key and their records.
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

        log = Log(Path(name))
        keys = {segment.seal.key: segment for segment in log.sealed if segment.seal}
        if last == "seal" and whole:
            assert list(keys[f"k{life.count}"].lines()) == acknowledged
            assert log.open is None
        else:
            expected = (
                [*acknowledged, life.open[-1]] if last == "append" and whole else acknowledged
            )
            assert kept(log) == expected
        for segment in log.sealed:
            life.store(segment)
        everything = [line for lines in life.written.values() for line in lines] + kept(log)
        assert sorted(everything) == sorted(set(everything))
        assert everything.count(acknowledged[-1]) == 1
        promised = [line for lines in life.sealed.values() for line in lines] + acknowledged
        assert set(promised) <= set(everything)


def test_a_window_without_its_seal_is_not_forgotten(tmp_path):
    """Damage that costs an earlier window its seal leaves its records, which want a key again."""
    log = Log(tmp_path)
    log.current(1.0).append(b'{"n":1}\n', 1)
    first = log.seal("k")
    log.current(2.0).append(b'{"n":2}\n', 1)
    log.current(2.0).release()
    first.path.write_bytes(first.path.read_bytes()[:-3])
    recovered = Log(tmp_path)
    assert [list(segment.lines()) for segment in recovered.unsealed] == [[b'{"n":1}\n']]
    recovered.seal("a")
    recovered.seal("b")
    assert recovered.unsealed == []
    assert recovered.open is None
    assert [list(each.lines()) for each in recovered.sealed] == [[b'{"n":1}\n'], [b'{"n":2}\n']]


def test_numbers_are_not_used_again(tmp_path):
    """A segment that was set aside keeps its number: the next one does not take its place."""
    (tmp_path / "000000000007.wal").write_bytes(b"garbage")
    log = Log(tmp_path)
    log.current(0.0).append(b"{}\n", 1)
    log.current(0.0).release()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "000000000007.broken",
        "000000000008.wal",
    ]


def test_half_a_frame_that_could_not_be_cut_off_is_cut_off_later(tmp_path, monkeypatch):
    """A failed write whose clean-up fails too does not hide the records after it."""
    log = Log(tmp_path)
    log.current(0.0).append(b'{"n":1}\n', 1)

    def fail(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", fail)
        patch.setattr("os.ftruncate", fail)
        with pytest.raises(RunError, match="Input/output error"):
            log.current(0.0).append(b'{"n":2}\n', 1)
    log.current(0.0).append(b'{"n":3}\n', 1)
    log.current(0.0).release()
    assert kept(Log(tmp_path)) == [b'{"n":1}\n', b'{"n":3}\n']

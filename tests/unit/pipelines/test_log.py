"""The write-ahead log: what a crash leaves is what was acknowledged."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesim.pipelines.log import Log

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

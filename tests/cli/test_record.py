"""`edgesim dev --record`: live traffic becomes a fixture without secrets, and can be replayed."""

import errno
import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgesim.clock import Clock
from edgesim.dev.record import recording
from edgesim.model import HttpRequest
from tests.processes import WORKERS, dev, edgesim

EVENT = {"event": "login", "player_id": "p1", "ts": 1767225600000}


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Simulate a disk with room for ``room`` bytes."""
    pwrite = os.pwrite

    def write(fd: int, data: bytes, offset: int) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = pwrite(fd, data[:room], offset)
        room -= written
        return written

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgesim.dev.record.os.pwrite", write)
        yield


def test_what_was_recorded_replays(tmp_path):
    """Same responses, same rows; no secret of header, body or query is in the file."""
    fixture = tmp_path / "recorded.ndjson"
    with dev(WORKERS, tmp_path / "state", "--isolation", "inline", "--record", fixture) as running:
        secret = EVENT | {"props": {"session_token": "s3cr3t-in-body", "damage": 7}}
        assert running.post(secret) == 200
        assert (
            running.request(body=b"\xff\xfe broken", headers={"authorization": "s3cr3t"})[0] == 400
        )
        status, _ = running.request("/health?api_key=s3cr3t&a=b", None, method="GET")
        assert status == 200
        assert running.stop() == 0
    text = fixture.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert "s3cr3t" not in text
    assert "start" in lines[0]
    assert lines[0]["request"]["json"]["props"] == {"session_token": "REDACTED", "damage": 7}
    assert lines[2]["request"]["path"] == "/health?api_key=REDACTED&a=b"
    expect = tmp_path / "expected.toml"
    expect.write_text(
        "[responses]\n200 = 2\n400 = 1\n"
        '[sql]\n"SELECT event, player_id FROM events" = ["login", "p1"]\n'
    )
    done = edgesim(
        *("replay", fixture, "--project", WORKERS, "--isolation", "inline", "--expect", expect)
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_recording_overwrites_nothing(tmp_path):
    """An existing file is refused, in one line."""
    fixture = tmp_path / "precious.ndjson"
    fixture.write_text("precious")
    done = edgesim(
        *("dev", WORKERS, "--port", 0, "--state", tmp_path / "state", "--record", fixture)
    )
    assert done.returncode == 2
    assert "is there already" in done.stderr
    assert fixture.read_text() == "precious"


def test_a_full_disk_costs_the_recording_only(tmp_path, capsys):
    """Requests that do not fit are missing and reported, at once and at exit; lines stay whole."""
    for name, opener in (("recorded.ndjson", open), ("recorded.ndjson.gz", gzip.open)):
        path = tmp_path / name
        with recording(path, Clock()) as recorder:
            for number in range(6):
                with full_disk(10 if number in {2, 3} else 1 << 20):
                    recorder.add(HttpRequest("POST", f"http://x/{number}", [], b"x" * 50), None)
            assert recorder.missing == 2
        with opener(path) as file:
            lines = [json.loads(line) for line in file]
        assert [line["request"]["path"] for line in lines] == ["/0", "/1", "/4", "/5"]
        said = capsys.readouterr().out
        assert said.count("request not recorded") == 1
        assert "recording is incomplete" in said


def test_a_recording_that_loses_its_first_line_has_a_start(tmp_path):
    """The first line that is written has the start time of the recording."""
    path = tmp_path / "recorded.ndjson"
    with recording(path, Clock()) as recorder:
        with full_disk(10):
            recorder.add(HttpRequest("GET", "http://x/0", [], b""), None)
        recorder.add(HttpRequest("GET", "http://x/1", [], b""), None)
    assert "start" in json.loads(path.read_text())

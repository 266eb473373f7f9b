"""`edgesim dev --record`: live traffic becomes a fixture, without its secrets, and replays."""

import json

from tests.processes import WORKERS, dev, edgesim

EVENT = {"event": "login", "player_id": "p1", "ts": 1767225600000}


def test_what_was_recorded_replays(tmp_path):
    """Same answers, same rows; no secret of header, body or query is in the file."""
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
    """A file that is there already is refused, in one line."""
    fixture = tmp_path / "precious.ndjson"
    fixture.write_text("precious")
    done = edgesim(
        *("dev", WORKERS, "--port", 0, "--state", tmp_path / "state", "--record", fixture)
    )
    assert done.returncode == 2
    assert "is there already" in done.stderr
    assert fixture.read_text() == "precious"

"""`edgesim replay --shrink`: a long failing case becomes a short one."""

import json

from tests.processes import WORKERS, edgesim


def test_a_failing_replay_is_reduced(tmp_path):
    """Eight requests and four rules are reduced to the one request and the one rule that fail."""
    fixture = tmp_path / "many.ndjson"
    event = {"event": "kill", "player_id": "p", "ts": 1767225600000}
    fixture.write_text(
        "".join(json.dumps({"at": at, "request": {"json": event}}) + "\n" for at in range(8))
    )
    rules = "r2 latency 1s; queues duplicate 1%; tail outage from 0s; queues reorder 50%"
    expect = tmp_path / "expected.toml"
    expect.write_text('[counts]\n"tail.lost" = 0\n')
    done = edgesim(
        *("replay", fixture, "--project", WORKERS, "--isolation", "inline"),
        *("--faults", rules, "--expect", expect, "--shrink", tmp_path / "small"),
    )
    assert done.returncode == 1, done.stderr
    assert len((tmp_path / "small" / "fixture.ndjson").read_text().splitlines()) == 1
    assert (tmp_path / "small" / "faults.txt").read_text() == "tail outage from 0s\n"
    assert "repeat it with" in done.stdout


def test_what_does_not_fail_is_not_shrunk(tmp_path):
    """One line, exit 2."""
    fixture = tmp_path / "fine.ndjson"
    fixture.write_text('{"request": {"method": "GET", "path": "/health"}}\n')
    done = edgesim(
        *("replay", fixture, "--project", WORKERS, "--isolation", "inline"),
        *("--shrink", tmp_path / "small"),
    )
    assert done.returncode == 2
    assert "nothing to shrink" in done.stderr

"""Hostile requests through the whole chain: no event is lost."""

import json

from tests.processes import WORKERS, edgesim

TS = 1_767_225_600_000
MONTH_MS = 31 * 86_400_000


def fixture(tmp_path, lines):
    path = tmp_path / "hostile.ndjson"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def good(number, **more):
    return {"event": "kill", "player_id": f"p{number}", "ts": TS + number} | more


def expect(tmp_path, events, errors):
    path = tmp_path / "expected.toml"
    path.write_text(
        f'[sql]\n"SELECT count() FROM events" = {events}\n'
        f'"SELECT count() FROM ingest_errors" = {errors}\n'
    )
    return path


def test_no_event_costs_its_neighbours_anything(tmp_path):
    """Lone surrogates, integers of 100 bits and clocks that are years off: every event is a row."""
    odd = [good(0, props={"text": "\ud800"}), good(1, props={"id": 10**30}), good(2, odd="\udfff")]
    off = [good(3) | {"ts": number * MONTH_MS} for number in range(150)]
    lines = [*map(good, range(20)), *odd, *off, *map(good, range(20))]
    done = edgesim(
        *("replay", fixture(tmp_path, lines), "--project", WORKERS, "--isolation", "inline"),
        *("--expect", expect(tmp_path, len(lines), 0)),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_headers_count_against_the_log(tmp_path):
    """An event that fits the trace only without its request's headers is not lost."""
    request = {
        "headers": {"x-pad": "h" * 100_000},
        "body": json.dumps(good(0, props={"text": "x" * 190_000})),
    }
    done = edgesim(
        *("replay", fixture(tmp_path, [{"request": request}]), "--project", WORKERS),
        *("--isolation", "inline", "--expect", expect(tmp_path, 1, 0)),
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""The command line of the game events generator."""

import gzip
import json
import subprocess
import sys
from collections import Counter

from tests.processes import ROOT
from tests.unit.workers.test_event import event

GENERATOR = ROOT / "examples" / "game-events" / "generate.py"
START_MS = 1_767_225_600_000  # 2026-01-01
LATER_MS = START_MS + 30 * 86_400_000


def generate(*arguments, hash_seed="0"):
    done = subprocess.run(
        [sys.executable, str(GENERATOR), *map(str, arguments)],
        capture_output=True,
        check=True,
        env={"PYTHONHASHSEED": hash_seed},
    )
    return done.stdout


def events(*arguments):
    return [json.loads(line) for line in generate(*arguments).splitlines()]


def test_same_seed_same_bytes():
    """The output is the same in processes with other hash seeds, and differs for another --seed."""
    mixed = ("--count", 300, "--malformed", 0.2, "--oversized", 0.01)
    assert generate(*mixed, hash_seed="1") == generate(*mixed, hash_seed="2")
    assert generate(*mixed) != generate(*mixed, "--seed", 2)


def test_gzip_has_no_time_and_no_name(tmp_path):
    """A gzip file does not depend on its name or time; its content is that of standard output."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        generate("--count", 50, "--out", tmp_path / name / f"{name}.ndjson.gz")
    one, other = ((tmp_path / n / f"{n}.ndjson.gz").read_bytes() for n in ("one", "other"))
    assert one == other
    assert gzip.decompress(one) == generate("--count", 50)


def test_events_are_right_and_in_the_order_of_time():
    """Without malformed ones every line is an event that the receiver accepts, in order of time."""
    made = events("--count", 2_000)
    assert len(made) == 2_000
    times = [each["ts"] for each in made]
    assert times == sorted(times)
    assert START_MS <= times[0] <= times[-1] < LATER_MS
    for each in made:
        assert event.read_events(json.dumps(each).encode(), LATER_MS) == [each]


def test_the_start_is_the_first_events_time():
    """--start takes an ISO date and shifts all events."""
    [first] = events("--count", 1, "--start", "2025-06-01")
    assert 0 <= first["ts"] - 1_748_736_000_000 < 60_000


def test_few_players_make_most_of_it():
    """The busiest tenth of the players sends more than half of the events, as in a real game."""
    counts = sorted(Counter(each["player_id"] for each in events("--count", 5_000)).values())
    busiest = counts[-(len(counts) // 10) :]
    assert sum(busiest) > 2_500


def test_malformed_are_refused_in_many_ways():
    """With --malformed 1 every line is refused, for at least six different reasons."""
    details = set()
    for line in events("--count", 200, "--malformed", 1):
        try:
            event.read_events(line["request"]["body"].encode(), LATER_MS)
        except event.InvalidError as invalid:
            details.add(invalid.detail.partition(":")[0])
        else:
            raise AssertionError(line)
    assert len(details) >= 6


def test_oversized_are_too_large_for_a_log_and_not_for_a_request():
    """An oversized event exceeds a trace's 256 KB, but not the receiver's 5 MB."""
    for line in generate("--count", 3, "--oversized", 1).splitlines():
        assert 256 * 1024 < len(line) < 5_000_000

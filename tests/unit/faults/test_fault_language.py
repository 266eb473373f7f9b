"""The fault language: rules, targets and errors."""

import math

import pytest

from edgesim import faults
from edgesim.config import load_project
from edgesim.errors import UsageError
from edgesim.replay.targets import targets_of
from tests.processes import WORKERS

TARGETS = targets_of(load_project(WORKERS))


def read(text):
    return faults.read(text, TARGETS)


def test_a_rule_is_a_target_a_kind_and_an_amount():
    """A rule has a target, a kind, a chance or latency, and a window, in any time unit."""
    [error, latency, outage, kill] = read(
        "r2.put error 2.5% from 1m; queues latency 200ms..2s 10%  # slow\n"
        "clickhouse outage from 90s to 1h; platform kill at 95s"
    )
    assert (error.target, error.kind, error.chance, error.since) == ("r2.put", "error", 0.025, 60)
    assert error.until == math.inf
    assert (latency.latency, latency.chance) == ((0.2, 2.0), 0.1)
    assert (outage.since, outage.until, outage.chance) == (90, 3600, 1)
    assert (kill.kind, kill.since) == ("kill", 95)


def test_stops_are_at_a_time_or_after_steps():
    """Steps are counted from `from T`, or from the next restart."""
    [cut, kill, again] = read(
        "platform power-cut at 95s; platform kill after 40 steps from 90s\n"
        "platform power-cut after 3 recovery-steps"
    )
    assert (cut.kind, cut.since, cut.steps) == ("power-cut", 95, 0)
    assert (kill.kind, kill.since, kill.steps, kill.recovery) == ("kill", 90, 40, False)
    assert (again.steps, again.recovery) == (3, True)


def test_a_clock_jumps_forward_or_back():
    """A clock jump has a signed duration."""
    [forward, back] = read("clock jump 1h at 95s; clock jump -1.5h at 2m")
    assert (forward.jump, forward.since) == (3600, 95)
    assert (back.jump, back.since) == (-5400, 120)


def test_every_name_of_the_project_is_a_target():
    """Buckets, queues, Pipelines, Workers and the methods of stores are targets."""
    rules = read(
        "r2.events error 1%; queues.ingest error 1%; pipelines.errors error 1%\n"
        "dead-letter crash 1%; queues.ack lost-answer 1%; clickhouse.insert error 1%"
    )
    assert len(rules) == 6


def test_a_file_is_read(tmp_path):
    """A file name stands for the file's content; errors name file and line."""
    path = tmp_path / "faults.txt"
    path.write_text("# nothing yet\n\nr2 error 1%\nr2 eror 1%\n")
    with pytest.raises(UsageError, match=r"faults\.txt: line 4.*did you mean 'error'"):
        read(str(path))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("r2", "TARGET KIND"),
        ("quues error 1%", "did you mean 'queues'"),
        ("r2 error", "needs a chance"),
        ("r2 error 101%", "0% to 100%"),
        ("r2 error often", "'often' is not an amount"),
        ("r2 latency", "needs a duration"),
        ("r2 latency 2s..1s", "needs a duration"),
        ("r2 latency fast", "'fast' is not a time"),
        ("r2 outage from 5m to 1m", "ends before it begins"),
        ("r2 outage from", "a time must follow"),
        ("r2 kill at 5s", "kill is a fault of platform"),
        ("platform kill", "kill needs `at T`"),
        ("r2 error 1% at 5s", "`at` is for bit-flip, jump, kill"),
        ("insert duplicate 1%", "duplicate is a fault of queues"),
        ("platform power-cut", "power-cut needs `at T` or `after N steps`"),
        ("platform kill at 5s after 3 steps", "kill needs `at T` or `after N steps`"),
        ("platform kill after 0 steps", "needs a number of steps"),
        ("platform kill after 3 days", "needs a number of steps"),
        ("disk error 1%", "error is a fault of"),
        ("disk failed-fsync", "needs a chance"),
        ("r2 full 1%", "full is a fault of disk"),
        ("disk bit-flip", "bit-flip needs `at T`"),
        ("clock jump at 5s", "jump needs a duration"),
        ("clock jump 1h", "jump needs `at T`"),
    ],
)
def test_what_is_wrong_is_one_line(text, problem):
    """An error is one line with the rule, the problem, and the cure or the nearest spelling."""
    with pytest.raises(UsageError) as error:
        read(text)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)

"""Pure parts of the tail, insert and dead-letter Workers."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.workers.test_event import load

traces = load("tail", "traces")
retries = load("insert", "retries")


def trace(*messages: list[Any], **more: Any) -> SimpleNamespace:
    logs = [SimpleNamespace(message=message, timestamp=5.0) for message in messages]
    defaults = {"scriptName": "receiver", "eventTimestamp": 4.0, "outcome": "ok", "event": None}
    return SimpleNamespace(
        **(defaults | {"logs": logs, "exceptions": [], "truncated": False} | more)
    )


def test_both_console_shapes_are_read_in_order():
    """Records of print (one string) and console.log (two) are read in order; others are ignored."""
    events, errors = traces.read_trace(
        trace(['PIPE_ME {"n":1}'], ["hello"], ["PIPE_ME", '{"n":2}'], ["PIPE_MEAN", "x"])
    )
    assert [record for record, _ in events] == [{"n": 1}, {"n": 2}]
    assert errors == []


def test_a_bad_line_never_costs_its_neighbours():
    """A marked line that does not parse is recorded in errors; the other lines are kept."""
    events, errors = traces.read_trace(
        trace(["PIPE_ME {broken"], ["PIPE_ME 5"], ['PIPE_ME {"n":1}'])
    )
    assert [record for record, _ in events] == [{"n": 1}]
    assert [record["reason"] for record, _ in errors] == ["unparsable_log"] * 2
    assert errors[0][0]["raw"] == "PIPE_ME {broken"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"outcome": "exceededCpu"}, "exceededCpu"),
        ({"truncated": True}, "truncated"),
        ({"outcome": "exception", "exceptions": [SimpleNamespace(message="bad")]}, "exception"),
    ],
)
def test_troubles_of_the_producer_are_records(more, reason):
    """An exception, an outcome other than ok, and a truncated trace are recorded in errors."""
    _, errors = traces.read_trace(trace(**more))
    assert [record["reason"] for record, _ in errors] == [reason]


def test_a_client_that_went_away_is_no_trouble():
    """A canceled request is no error, as the client disconnected."""
    assert traces.read_trace(trace(outcome="canceled")) == ([], [])


@given(st.lists(st.integers(1, 50)))
def test_split_keeps_order_and_limit(sizes):
    """Chunks keep the order; only a chunk of a single record may exceed the limit."""
    records = [(number, size) for number, size in enumerate(sizes)]
    chunks = traces.split(records, 60)
    assert [number for chunk in chunks for number in chunk] == list(range(len(sizes)))
    for chunk in chunks:
        assert sum(sizes[number] for number in chunk) <= 60 or len(chunk) == 1


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_grows_to_its_cap(attempts, chance):
    """The delay is between 1 s and the cap, and at most base * 2^(attempts - 1)."""
    delay = retries.backoff(attempts, 5, 900, chance)
    assert 1 <= delay <= min(900, 5 * 2 ** min(attempts - 1, 31))
    assert isinstance(delay, int)


def test_the_helper_is_the_same_in_both_workers():
    """tail and large-payload have the same copy: a Worker deploys only its own folder."""
    from tests.processes import WORKERS

    one, other = (WORKERS / name / "rpc.py" for name in ("tail", "large-payload"))
    assert one.read_bytes() == other.read_bytes()

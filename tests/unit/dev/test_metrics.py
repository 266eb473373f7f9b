"""Statistics in the Prometheus text format."""

import pytest

from edgesim.dev.metrics import of_queues, of_stats, of_workers, render
from edgesim.runtime.histogram import Histogram

STATS = {
    "receiver": {"requests": 3, "rejected": 1},
    "pipelines": {"events": {"records": 2, "bytes": 9, "pending": 1, "dropped": {"missing": 4}}},
    "queues": {'odd "name"': {"backlog": 5, "delivered": 7}},
    "invocations": {"receiver": {"ok": 2, "exceededCpu": 1}},
    "cpu_ms": {"large-payload": 1.5},
}


def test_counters_and_gauges():
    """Totals are counters, current values are gauges, and names become labels."""
    lines = render(of_stats(STATS)).splitlines()
    assert "# TYPE edgesim_receiver_requests_total counter" in lines
    assert "edgesim_receiver_requests_total 3" in lines
    assert "# TYPE edgesim_pipelines_pending gauge" in lines
    assert "# TYPE edgesim_pipelines_bytes_total counter" in lines
    assert 'edgesim_pipelines_dropped_total{pipeline="events",reason="missing"} 4' in lines
    assert 'edgesim_pipelines_pending{pipeline="events"} 1' in lines
    assert 'edgesim_invocations_total{worker="receiver",outcome="exceededCpu"} 1' in lines
    assert 'edgesim_cpu_seconds_total{worker="large-payload"} 0.0015' in lines


def test_label_values_are_escaped():
    """A quotation mark in a label value is escaped."""
    assert (
        'edgesim_queues_backlog{queue="odd \\"name\\""} 5' in render(of_stats(STATS)).splitlines()
    )


def test_a_family_is_in_one_piece():
    """All samples of a family directly follow its TYPE line."""
    text = render(of_stats(STATS | {"r2": {"a": {"objects": 1}, "b": {"objects": 2}}}))
    start = text.index("# TYPE edgesim_r2_objects gauge\n")
    assert text[start:].splitlines()[1:3] == [
        'edgesim_r2_objects{bucket="a"} 1',
        'edgesim_r2_objects{bucket="b"} 2',
    ]


def test_the_age_of_a_queue():
    """The age of a queue's oldest message is a gauge in seconds."""
    assert 'edgesim_queues_oldest_seconds{queue="in"} 2.5' in render(of_queues({"in": 2.5}))


def test_durations_of_invocations():
    """Buckets are cumulative; +Inf and _count include every invocation."""
    wall = Histogram()
    for seconds in (0.0005, 0.001, 0.02, 31):
        wall.observe(seconds)
    lines = render(of_workers({"main": {"ok": wall}})).splitlines()
    assert lines[0].startswith("# HELP edgesim_invocation_seconds ")
    assert lines[1] == "# TYPE edgesim_invocation_seconds histogram"
    labels = 'worker="main",outcome="ok"'
    for bound, count in (("0.001", 2), ("0.01", 2), ("0.025", 3), ("30.0", 3), ("+Inf", 4)):
        assert f'edgesim_invocation_seconds_bucket{{{labels},le="{bound}"}} {count}' in lines
    assert f"edgesim_invocation_seconds_count{{{labels}}} 4" in lines
    [total] = [line for line in lines if line.startswith("edgesim_invocation_seconds_sum")]
    assert float(total.rpartition(" ")[2]) == pytest.approx(31.0215)

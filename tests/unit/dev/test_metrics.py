"""Counters as Prometheus reads them."""

from edgesim.dev.metrics import render

STATS = {
    "receiver": {"requests": 3, "rejected": 1},
    "pipelines": {"events": {"records": 2, "pending": 1, "objects": 0}},
    "queues": {'odd "name"': {"backlog": 5, "delivered": 7}},
    "invocations": {"receiver": {"ok": 2, "exceededCpu": 1}},
    "cpu_ms": {"large-payload": 1.5},
}


def test_counters_and_gauges():
    """What only grows is a counter, what is there now a gauge; labels say which one."""
    lines = render(STATS).splitlines()
    assert "# TYPE edgesim_receiver_requests_total counter" in lines
    assert "edgesim_receiver_requests_total 3" in lines
    assert "# TYPE edgesim_pipelines_pending gauge" in lines
    assert 'edgesim_pipelines_pending{pipeline="events"} 1' in lines
    assert 'edgesim_invocations_total{worker="receiver",outcome="exceededCpu"} 1' in lines
    assert 'edgesim_cpu_ms_total{worker="large-payload"} 1.5' in lines


def test_label_values_are_escaped():
    """A quotation mark in a name does not end the label."""
    assert 'edgesim_queues_backlog{queue="odd \\"name\\""} 5' in render(STATS).splitlines()


def test_a_family_is_in_one_piece():
    """All samples of a name follow its TYPE line."""
    text = render(STATS | {"r2": {"a": {"objects": 1}, "b": {"objects": 2}}})
    start = text.index("# TYPE edgesim_r2_objects gauge\n")
    assert text[start:].splitlines()[1:3] == [
        'edgesim_r2_objects{bucket="a"} 1',
        'edgesim_r2_objects{bucket="b"} 2',
    ]

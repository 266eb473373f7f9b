"""Several nodes that share JetStream, S3 and ClickHouse and nothing else; one of them is killed."""

from contextlib import ExitStack

import pytest

from tests.nodes.world import Load, kill_with_records, node, servers, write_project

pytestmark = [pytest.mark.nats_server, pytest.mark.s3_server, pytest.mark.clickhouse_server]


def test_a_killed_node_loses_nothing_that_was_acknowledged(tmp_path, monkeypatch, capsys):
    """Three nodes under load, one killed -9 and restarted: every acknowledged id is a row."""
    project = write_project(tmp_path / "project")
    acknowledged: set[str] = set()
    loads = [Load(acknowledged) for _ in range(3)]
    with servers(tmp_path / "servers") as shared, ExitStack() as stack:
        for name, value in shared.variables.items():
            monkeypatch.setenv(name, value)
        states = [tmp_path / f"node-{number}" for number in range(3)]
        nodes = [stack.enter_context(node(project, state, shared)) for state in states]
        for load, running in zip(loads, nodes, strict=True):
            load.start(running.url)
        for load in loads:
            load.wait_for(60)
        left = kill_with_records(nodes[0], states[0])
        loads[0].stop()
        assert left & acknowledged
        for load in loads[1:]:
            load.wait_for(60)
        nodes[0] = stack.enter_context(node(project, states[0], shared))
        loads[0].start(nodes[0].url)
        loads[0].wait_for(60)
        for load in loads:
            load.stop()
        for running in nodes:  # they share the queue: drain all before stopping any
            running.drain()
        rows = shared.wait_for(acknowledged)
        assert [running.stop() for running in nodes] == [0, 0, 0]
    doubled = sum(count - 1 for count in rows.values())
    with capsys.disabled():
        sent = 5 * sum(load.count + load.failed for load in loads)
        print(f"\n{sent} sent, {len(acknowledged)} acknowledged, {len(rows)} stored, ", end="")
        print(f"{len(acknowledged - rows.keys())} lost, {doubled} rows doubled")

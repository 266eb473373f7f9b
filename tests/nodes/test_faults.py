"""A node under load while one of its servers is killed, frozen, restarted, or revokes access."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.nodes.world import (
    OURS,
    Load,
    Servers,
    end,
    grant,
    node,
    revoke,
    send,
    servers,
    start,
    until,
    write_project,
)
from tests.processes import Dev

pytestmark = [pytest.mark.nats_server, pytest.mark.s3_server, pytest.mark.clickhouse_server]

BEFORE = 20
DURING = int(os.environ.get("OUTAGE", "120"))
"""Acknowledged requests during an outage: several windows' worth; `make drills` sets more."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers, shared by all faults, which come one after the other."""
    with servers(tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture(scope="module")
def running(shared: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One node, which must survive all faults."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shared.variables.items():
            patch.setenv(name, value)
        folder = tmp_path_factory.mktemp("node")
        with node(write_project(folder / "project"), folder / "state", shared) as started:
            yield started
            assert started.stop() == 0
    faults = (OURS, "Traceback", "uncaught exception")
    assert not [line for line in started.log if any(fault in line for fault in faults)]


@pytest.mark.parametrize("fault", ["killed", "frozen", "restarted", "revoked"])
@pytest.mark.parametrize("name", ["nats", "s3", "clickhouse"])
def test_a_server_is_away(name: str, fault: str, running: Dev, shared: Servers) -> None:
    """Requests are acknowledged during the outage; afterwards everything arrives without help."""
    server = getattr(shared, name)
    acknowledged: set[str] = set()
    load = Load(acknowledged)
    load.start(running.url)
    load.wait_for(BEFORE)
    match fault:
        case "killed":
            server.kill()
        case "frozen":
            send(server, signal.SIGSTOP)
        case "restarted":
            end(server)
        case "revoked":
            revoke(shared, name)
    try:
        load.wait_for(DURING)
    finally:
        match fault:
            case "frozen":
                send(server, signal.SIGCONT)
            case "revoked":
                grant(shared, name)
            case _:
                start(server)
    load.wait_for(BEFORE)
    load.stop()
    running.drain()
    shared.wait_for(acknowledged)
    assert load.failed == 0
    assert running.process.poll() is None


@pytest.mark.parametrize("name", ["nats", "s3"])
def test_metrics_go_on_while_a_store_does_not_answer(
    name: str, running: Dev, shared: Servers
) -> None:
    """The node's own counters are reported in time; the gauges of a frozen store are omitted."""
    backend = {"nats": "queues", "s3": "r2"}[name]
    gauge = {"nats": "edgesim_queues_backlog{", "s3": "edgesim_r2_objects{"}[name]
    answered = f'edgesim_backend_answered{{backend="{backend}"}} '
    server = getattr(shared, name)

    def metrics() -> str:
        status, body = running.request("/cdn-cgi/edgesim/metrics", method="GET")
        assert status == 200
        return body.decode()

    assert running.post([{"id": "counted"}]) == 200
    until(lambda: f"{answered}1" in metrics() and gauge in metrics())
    send(server, signal.SIGSTOP)
    try:
        # The server may still reply to a request that it received before it stopped.
        until(lambda: f"{answered}0" in metrics())
        begun = time.monotonic()
        text = metrics()
        assert time.monotonic() - begun < 10  # Prometheus' default scrape timeout
        assert f"{answered}0" in text
        assert gauge not in text
        assert "edgesim_invocations_total{" in text
        status, body = running.request("/cdn-cgi/edgesim/stats", method="GET")
        assert (status, body.count(b"\n")) == (503, 1)
    finally:
        send(server, signal.SIGCONT)
    until(lambda: f"{answered}1" in metrics() and gauge in metrics())

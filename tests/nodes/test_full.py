"""A node under load while the disk of one of its servers is full."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.nodes.world import (
    OURS,
    Load,
    Servers,
    end,
    node,
    servers,
    small_disk,
    start,
    until,
    write_project,
)
from tests.processes import Dev

pytestmark = [pytest.mark.nats_server, pytest.mark.s3_server, pytest.mark.clickhouse_server]

SAID = {
    "s3": "pipeline cannot write its object, will try again",
    "nats": "r2 notifications are delayed",
}
MEGABYTES = {"nats": 24, "s3": 160, "clickhouse": 32}


class World:
    """The servers, each on a small disk, and a node."""

    def __init__(self, shared: Servers, fills: dict[str, Callable[[], Path]], running: Dev) -> None:
        self.shared = shared
        self.fills = fills
        self.running = running


@pytest.fixture(scope="module")
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """One node, which must survive the faults.

    "own" is for the nats-server: a message may stay in its stream after its disk was full, and the
    drains of other tests would find it.
    """
    folder = tmp_path_factory.mktemp("full")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        fills = {
            name: stack.enter_context(small_disk(folder / "servers" / name, size))
            for name, size in MEGABYTES.items()
        }
        shared = stack.enter_context(servers(folder / "servers"))
        for name, value in shared.variables.items():
            patch.setenv(name, value)
        project = write_project(folder / "project")
        started = stack.enter_context(node(project, folder / "state", shared))
        yield World(shared, fills, started)
        assert started.stop() == 0
    assert not [line for line in started.log if OURS in line or "Traceback" in line]


@pytest.mark.parametrize(
    ("name", "world"),
    [("s3", "shared"), ("clickhouse", "shared"), ("nats", "own")],
    indirect=["world"],
)
def test_a_server_is_full(name: str, world: World) -> None:
    """Requests are acknowledged while a disk is full; once there is room, everything arrives.

    S3 and ClickHouse recover by themselves; a nats-server whose disk was full must be restarted.
    """
    acknowledged: set[str] = set()
    load = Load(acknowledged)
    load.start(world.running.url)
    load.wait_for(60)
    world.shared.wait_for(set(acknowledged))
    filler = world.fills[name]()
    said, retried = len(world.running.log), _retried(world.running)
    load.wait_for(60)
    if name == "clickhouse":  # the insert Worker reports a failed insert
        until(lambda: _retried(world.running) > retried)
    else:
        until(lambda: any(SAID[name] in line for line in world.running.log[said:]))
    filler.unlink()
    if name == "nats":
        end(world.shared.nats)
        start(world.shared.nats)
    load.wait_for(20)
    load.stop()
    if name != "nats":  # with a full disk an acknowledged message may stay in its stream
        world.running.drain()
    rows = world.shared.wait_for(acknowledged)
    assert load.failed == 0
    assert all(rows[each] == 1 for each in acknowledged) or name == "nats"
    assert world.running.process.poll() is None


def _retried(running: Dev) -> int:
    retried: int = running.stats()["queues"]["ingest"]["retried"]
    return retried

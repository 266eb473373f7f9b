"""A Worker or the whole configuration is replaced while a batch is being handled."""

import anyio
import anyio.lowlevel
import pytest

from edgesim.backends import open_backends
from edgesim.clock import Clock
from edgesim.config import Environment, load_project
from edgesim.simulator import Simulator, open_simulator
from tests.simulated import ask, settle, simulated, write_worker

pytestmark = pytest.mark.anyio

SOURCE = """
VERSION = "old"
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        await self.env.Q.sendBatch([{"body": number} for number in range(10)])
        return Response("ok")
    async def queue(self, batch, env=None, ctx=None):
        for message in batch.messages:
            await asyncio.sleep(0.02)
            key = f"{message.body}/{VERSION}/{message.attempts}"
            await self.env.SEEN.put(key, "")
            message.ack()
"""
SETTINGS = {
    "r2_buckets": [{"binding": "SEEN", "bucket_name": "seen"}],
    "queues": {
        "producers": [{"binding": "Q", "queue": "jobs"}],
        "consumers": [{"queue": "jobs", "max_batch_size": 10, "max_batch_timeout": 1}],
    },
}


async def until_in_the_batch(simulator: Simulator) -> None:
    """Wait until the first message of the batch is handled and the last is not."""
    with anyio.fail_after(60):
        while not (await simulator.primitives.bucket("seen").list()).objects:
            await anyio.lowlevel.checkpoint()
    assert simulator.workers["main"].in_flight


async def seen(simulator: Simulator) -> list[str]:
    """Return message/version/attempt of every handled message."""
    return [each.key for each in (await simulator.primitives.bucket("seen").list()).objects]


@pytest.mark.parametrize("isolation", ["inline", "process"])
async def test_a_module_is_saved_during_a_batch(tmp_path, isolation):
    """The old version finishes its batch, each message once; the new one handles the next batch."""
    write_worker(tmp_path, "main", SOURCE, **SETTINGS)
    async with simulated(tmp_path, "main", isolation=isolation) as simulator:
        await ask(simulator)
        await until_in_the_batch(simulator)
        entry = tmp_path / "main" / "entry.py"
        entry.write_text(entry.read_text().replace('"old"', '"renewed"'))
        await simulator.workers.start(simulator.project.workers["main"])
        await settle(simulator)
        assert await seen(simulator) == [f"{number}/old/1" for number in range(10)]
        await ask(simulator)
        await settle(simulator)
        assert len(await seen(simulator)) == 20


async def test_the_configuration_changes_during_a_batch(tmp_path):
    """The project is closed and reopened over its stores: each message is handled once."""
    write_worker(tmp_path, "main", SOURCE, **SETTINGS)
    (tmp_path / "edgesim.toml").write_text(
        'workers = ["main"]\nisolation = "inline"\n[backends]\nr2 = "memory:"\nqueues = "memory:"\n'
    )
    project = load_project(tmp_path)
    clock = Clock()
    async with open_backends(project, Environment(), clock) as backends:
        async with open_simulator(project, backends, clock) as simulator:
            await ask(simulator)
            await until_in_the_batch(simulator)
        async with open_simulator(load_project(tmp_path), backends, clock) as successor:
            await settle(successor)
            assert await seen(successor) == [f"{number}/old/1" for number in range(10)]
            assert (await successor.stats())["queues"]["jobs"]["backlog"] == 0

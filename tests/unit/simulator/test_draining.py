"""Draining: a project is quiet only if nothing moved while the stages were looked at."""

from typing import Any

import pytest

from tests.simulated import ask, settle, simulated, write_worker

pytestmark = pytest.mark.anyio

SOURCE = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        await self.env.EVENTS.send([{"n": 1}])
        return Response("ok")
    async def queue(self, batch, env, ctx):
        pass
"""
ACCOUNT = """
[pipelines.events]
bucket = "events"
[[r2.events.notifications]]
queue = "jobs"
"""


async def test_work_that_passes_behind_the_look_is_noticed(tmp_path, monkeypatch):
    """An object that is written while the queues are looked at has a notification to come."""
    consumers = [{"queue": "jobs", "max_batch_timeout": 0}]
    write_worker(
        tmp_path,
        "main",
        SOURCE,
        pipelines=[{"binding": "EVENTS", "stream": "events"}],
        queues={"consumers": consumers},
    )
    async with simulated(tmp_path, "main", account=ACCOUNT) as simulator:
        await settle(simulator)
        assert await simulator.draining.is_quiet(simulator.primitives.clock.now())
        assert (await ask(simulator))[0] == 200
        queue = simulator.primitives.consumers[0].queue
        depth = queue.depth

        async def slow_depth() -> Any:
            seen = await depth()
            await simulator.primitives.pipelines["events"].roll()
            return seen

        monkeypatch.setattr(queue, "depth", slow_depth)
        assert not await simulator.draining.is_quiet(simulator.primitives.clock.now())

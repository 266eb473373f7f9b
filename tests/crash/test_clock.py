"""The system clock is set while messages, windows and notifications are in progress."""

import time

import pytest

from edgesim.clock import Clock
from tests.simulated import ask, settle, simulated, write_worker

pytestmark = pytest.mark.anyio

SOURCE = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        name = request.headers["x-name"]
        await self.env.PIPELINE.send([{"name": name}])
        await self.env.Q.send({"name": name})
        return Response("ok")
    async def queue(self, batch, env=None, ctx=None):
        for message in batch.messages:
            key = message.body["object"]["key"] if "object" in message.body else None
            name = key or message.body["name"]
            await self.env.SEEN.put(f"{batch.queue}/{name}/{message.id}", "")
"""
SETTINGS = {
    "r2_buckets": [{"binding": "SEEN", "bucket_name": "seen"}],
    "pipelines": [{"binding": "PIPELINE", "stream": "events"}],
    "queues": {
        "producers": [{"binding": "Q", "queue": "jobs"}],
        "consumers": [
            {"queue": "jobs", "max_batch_size": 100, "max_batch_timeout": 0.2},
            {"queue": "ingest", "max_batch_size": 100, "max_batch_timeout": 0.2},
        ],
    },
}
ACCOUNT = """
[pipelines.events]
bucket = "events"
max_seconds = 0.05
[[r2.events.notifications]]
queue = "ingest"
"""


@pytest.mark.parametrize("seconds", [-86_400, -3600, -5, 3600])
async def test_a_clock_that_is_set_loses_and_doubles_nothing(tmp_path, monkeypatch, seconds):
    """Messages, windows and notifications from before and after arrive once, without delay."""
    write_worker(tmp_path, "main", SOURCE, **SETTINGS)
    right = time.time
    async with simulated(tmp_path, "main", account=ACCOUNT) as simulator:
        for number in range(20):
            if number == 10:
                monkeypatch.setattr("edgesim.clock._time", lambda: right() + seconds)
            assert (await ask(simulator, headers={"x-name": f"n{number}"}))[0] == 200
        await settle(simulator)
        handled = [each.key for each in (await simulator.primitives.bucket("seen").list()).objects]
        objects = [
            each.key for each in (await simulator.primitives.bucket("events").list()).objects
        ]
    names = sorted(key.split("/")[1] for key in handled if key.startswith("jobs/"))
    assert names == sorted(f"n{number}" for number in range(20))
    notified = sorted(
        key.removeprefix("ingest/").rpartition("/")[0]
        for key in handled
        if key.startswith("ingest/")
    )
    assert notified == sorted(objects)
    assert objects


def test_the_clock_never_steps_back(monkeypatch):
    """Set back, the clock continues from its last value at its rate; set forward, it follows."""
    clock = Clock()
    right = time.time
    before = clock.now()
    monkeypatch.setattr("edgesim.clock._time", lambda: right() - 3600)
    assert 0 <= clock.now() - before < 60
    monkeypatch.setattr("edgesim.clock._time", lambda: right() + 3600)
    assert 3600 <= clock.now() - before < 3660
    monkeypatch.setattr("edgesim.clock._time", right)
    assert 3600 <= clock.now() - before < 3660

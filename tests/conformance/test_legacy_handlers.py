"""Handlers of Python Workers from before compatibility date 2025-08-14, at every level."""

import json

import pytest

from edgesim.errors import ConfigError, WorkerLoadError
from edgesim.model import read_all
from edgesim.r2.bucket import R2ObjectBody
from tests.simulated import ask, settle, simulated, write_worker

pytestmark = pytest.mark.anyio

LEVELS = ["process", "warm", "inline"]
OLD = {"compatibility_date": "2025-8-13"}
QUEUE = {
    "queues": {"producers": [{"binding": "Q", "queue": "q"}], "consumers": [{"queue": "q"}]},
    "r2_buckets": [{"binding": "B", "bucket_name": "bucket"}],
}
MODULE = """
import json
import js
from js import Response

async def on_fetch(request, env, ctx):
    assert isinstance(request, js.Request), type(request)
    sent = json.loads(await request.text())
    await env.Q.send(sent)
    ctx.waitUntil(env.B.put("later", "done"))
    return Response.new(f"{request.method} {sent['n']}", status=201)

async def on_queue(batch, env):
    for message in batch.messages:
        await env.B.put("queued", str(message.body["n"]))

async def on_scheduled(controller):
    assert controller.cron == "0 3 * * *"
"""
CLASS = """
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def on_fetch(self, request, env, ctx):
        await self.env.Q.send(await request.json())
        return Response(f"{env} {ctx} {await self.env.OTHER.double(4)}")

    async def queue(self, batch, env, ctx):
        for message in batch.messages:
            await self.env.B.put("queued", str(message.body["n"]))

class Other(WorkerEntrypoint):
    async def double(self, number):
        return number * 2
"""


@pytest.mark.parametrize("level", LEVELS)
async def test_module_level_handlers(tmp_path, level):
    """They get the raw request, env and ctx, and as many arguments as they take."""
    settings = OLD | QUEUE | {"triggers": {"crons": ["0 3 * * *"]}}
    write_worker(tmp_path, "main", MODULE, **settings)
    async with simulated(tmp_path, "main", isolation=level) as simulator:
        for number in (5, 6):
            body = json.dumps({"n": number}).encode()
            assert await ask(simulator, method="POST", body=body) == (201, b"POST %d" % number)
        await settle(simulator)
        assert await simulator.scheduled("main", "0 3 * * *", 60_000) == "ok"
        for key, found in (("queued", b"6"), ("later", b"done")):
            stored = await simulator.primitives.bucket("bucket").get(key)
            assert isinstance(stored, R2ObjectBody)
            assert await read_all(stored.body) == found


@pytest.mark.parametrize("level", LEVELS)
async def test_a_class_of_that_time(tmp_path, level):
    """Its fetch handler is on_fetch, its other methods have their own names."""
    services = [{"binding": "OTHER", "service": "main", "entrypoint": "Other"}]
    write_worker(tmp_path, "main", CLASS, **OLD, **QUEUE, services=services)
    async with simulated(tmp_path, "main", isolation=level) as simulator:
        found = await ask(simulator, method="POST", body=b'{"n": 7}')
        assert found == (200, b"None None 8")
        await settle(simulator)


FETCH = "from workers import Response, WorkerEntrypoint\nclass Default(WorkerEntrypoint):\n"
FETCH += "    def fetch(self, request):\n        return Response('new')\n"
FLAG = {"compatibility_date": "2026-05-01"}


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"compatibility_date": "2025-08-14"}, "new"),
        ({"compatibility_date": "2024-01-01", "flag": "python_no_global_handlers"}, "new"),
        ({"compatibility_date": "2025-08-13"}, "error code: 1101"),
        (FLAG | {"flag": "disable_python_no_global_handlers"}, "error code: 1101"),
    ],
)
async def test_date_and_flags_decide(tmp_path, settings, answer):
    """Before the date a class's fetch is not called; either flag decides otherwise."""
    flags = ["python_workers"] + ([settings["flag"]] if "flag" in settings else [])
    date = settings["compatibility_date"]
    write_worker(tmp_path, "main", FETCH, compatibility_date=date, compatibility_flags=flags)
    async with simulated(tmp_path, "main") as simulator:
        assert (await ask(simulator))[1].decode() == answer


@pytest.mark.parametrize(
    ("source", "date", "problem"),
    [
        (FETCH + "def on_fetch(request): pass\n", "2025-01-01", "multiple default entrypoints"),
        (MODULE, "2025-08-14", "module-level on_fetch is not called since"),
        ("x = 1\n", "2025-01-01", "no class Default"),
    ],
)
async def test_modules_that_do_not_load(tmp_path, source, date, problem):
    """Both kinds of handlers together, the old kind after its date, and none."""
    write_worker(tmp_path, "main", source, compatibility_date=date)
    with pytest.raises((ConfigError, WorkerLoadError), match=problem):
        async with simulated(tmp_path, "main"):
            pass

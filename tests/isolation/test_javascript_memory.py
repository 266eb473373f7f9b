"""JavaScript Workers make the platform hold little memory, however many bodies they leave."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from edgesim.errors import EdgesimError
from edgesim.isolates.host import budget
from edgesim.isolates.host.budget import Budget
from edgesim.isolates.javascript import http
from edgesim.simulator import Simulator
from tests.isolation.test_platform_memory import MB, peak
from tests.javascript_world import running, write_javascript
from tests.simulated import ask

pytestmark = [pytest.mark.anyio, pytest.mark.linux, pytest.mark.timeout(300)]

COMMON, OWN, SECONDS = 96 * MB, 32 * MB, 0.5
PEAK_MB = 250
PROMPT_SECONDS = 30.0
SOURCE = """
const attacks = {
  async seed(env) {
    await env.KV.put("large", new Uint8Array(20 << 20));
    await env.B.put("large", new Uint8Array(4 << 20));
  },
  async values(env) {
    const kept = [];
    for (let i = 0; i < 30; i++) kept.push(await env.KV.get("large", "stream"));
  },
  async objects(env) {
    const kept = [];
    for (let i = 0; i < 600; i++) kept.push(await env.B.get("large"));
    await scheduler.wait(500);
  },
  async arguments(env) {
    const text = "x".repeat(10 << 20);
    const calls = [];
    for (let i = 0; i < 6; i++) {
      calls.push(env.OTHER.waits(text));
      await scheduler.wait(5);
    }
    await Promise.all(calls);
  },
  async bodies(env) {
    const calls = [];
    for (let i = 0; i < 30; i++) {
      calls.push(env.OTHER.fetch("http://x/waits", { method: "POST", body: new Uint8Array(1 << 20) }));
    }
    await Promise.all(calls);
  },
};
export default {
  async fetch(request, env) {
    await attacks[new URL(request.url).pathname.slice(1)](env);
    return new Response("done");
  },
};
"""
OTHER = """
import { WorkerEntrypoint } from "cloudflare:workers";
export default class extends WorkerEntrypoint {
  async fetch(request) {
    if (request.url.endsWith("waits")) await scheduler.wait(3000);
    return new Response("other");
  }
  async waits(text) { await scheduler.wait(3000); return text.length; }
}
"""
KEYS: dict[str, Any] = {
    "kv_namespaces": [{"binding": "KV", "id": "kv"}],
    "r2_buckets": [{"binding": "B", "bucket_name": "bucket"}],
    "services": [{"binding": "OTHER", "service": "other"}],
}


@pytest.fixture
async def attacked(tmp_path) -> AsyncIterator[Simulator]:
    """A project of an attacker, the Worker that it calls and a neighbour, in a small budget."""
    loop = asyncio.get_running_loop()
    budget._budgets[loop] = Budget(COMMON, OWN, SECONDS)
    write_javascript(tmp_path, "main", SOURCE, **KEYS)
    write_javascript(tmp_path, "other", OTHER)
    write_javascript(tmp_path, "neighbour", OTHER)
    async with running(tmp_path, "main", "other", "neighbour") as simulator:
        assert await ask(simulator, "http://x/seed") == (200, b"done")
        yield simulator
    del budget._budgets[loop]


async def run(simulator: Simulator, name: str, times: int) -> None:
    """Run an attack several times at once, beside requests of the neighbour."""
    slowest = 0.0

    async def attack() -> None:
        try:
            await ask(simulator, f"http://x/{name}")
        except EdgesimError:
            return  # its connection was closed

    async def keep_asking() -> None:
        nonlocal slowest
        while True:
            began = anyio.current_time()
            assert await ask(simulator, worker="neighbour") == (200, b"other")
            slowest = max(slowest, anyio.current_time() - began)
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as asking:
        asking.start_soon(keep_asking)
        async with anyio.create_task_group() as attacks:
            for _ in range(times):
                attacks.start_soon(attack)
        asking.cancel_scope.cancel()
    assert slowest < PROMPT_SECONDS


@pytest.mark.parametrize("name", ["values", "objects", "arguments"])
async def test_bodies_that_nobody_reads(attacked, peak, name):
    """Values, objects and arguments of hundreds of megabytes wait, or end their invocation."""
    await run(attacked, name, 4)
    assert peak() < PEAK_MB
    outcomes = attacked.workers["main"].outcomes  # those beside one that is to blame end too
    assert set(outcomes) <= {"ok", "exception", "exceededMemory", "internalError"}, outcomes
    assert await ask(attacked, worker="other") == (200, b"other")


async def test_many_connections(attacked, peak, monkeypatch):
    """Bodies on hundreds of connections at a time share one limit."""
    most = 0
    add = http.Unread.add

    def noting(self, size):
        nonlocal most
        add(self, size)
        most = max(most, self.bytes)

    monkeypatch.setattr(http.Unread, "add", noting)
    await run(attacked, "bodies", 16)
    each = http.UNREAD_BYTES_MIN + http._READ_BYTES
    assert 16 * MB < most < http.UNREAD_ALL_BYTES_MAX + 16 * 30 * each
    assert peak() < PEAK_MB

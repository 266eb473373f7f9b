"""Backpressure: requests arrive faster than a Tail Worker handles their traces, inline level."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from edgesim.config.project import TailConfig
from edgesim.dev.edge import TARGET
from edgesim.dev.front import Front
from edgesim.model import TraceItem, TraceLog
from edgesim.runtime.tail import TailConsumer
from edgesim.simulator import Simulator
from tests.simulated import settle, simulated, write_worker

pytestmark = pytest.mark.anyio

BOUND = 50_000
CLIENTS = 4
MAIN = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        print("x" * 9_000)
        return Response("ok")
    async def queue(self, batch, env=None, ctx=None):
        print("x" * 9_000)
"""
TRACE_BYTES = 11_000  # upper bound of the size of one trace
TAIL = """
class Default(WorkerEntrypoint):
    async def tail(self, events, env=None, ctx=None):
        while await (await self.env.GATE.fetch("http://gate/")).text() != "open":
            await asyncio.sleep(0.001)
        if hasattr(self.env, "Q") and hasattr(events[0].event, "request"):
            await self.env.Q.send("taken")
"""
GATE = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        found = await self.env.B.head("open")
        return Response("closed" if found is None else "open")
"""

LATER = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        async def work():
            while await self.env.B.head("open") is None:
                await asyncio.sleep(0.001)
        self.ctx.waitUntil(work())
        return Response("ok")
"""


@pytest.fixture(autouse=True)
def small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgesim.runtime.tail.PENDING_BYTES", BOUND)


def write_workers(folder: Path, *, queue: bool = False) -> None:
    """Write a tailed Worker, a Tail Worker that waits for the gate to open, and the gate."""
    producer = {"queues": {"producers": [{"binding": "Q", "queue": "jobs"}]}} if queue else {}
    consumers = [{"queue": "jobs", "max_batch_size": 1, "max_batch_timeout": 0}]
    consumer = {"queues": {"consumers": consumers}} if queue else {}
    write_worker(folder, "main", MAIN, tail_consumers=[{"service": "tail"}], **consumer)
    services = [{"binding": "GATE", "service": "gate"}]
    write_worker(folder, "tail", TAIL, services=services, **producer)
    write_worker(folder, "gate", GATE, r2_buckets=[{"binding": "B", "bucket_name": "gate"}])


@asynccontextmanager
async def world(folder: Path, *, queue: bool = False) -> AsyncIterator[tuple[Front, Simulator]]:
    write_workers(folder, queue=queue)
    account = "[tail]\nmax_items = 5\nmax_seconds = 0.01\n"
    async with simulated(folder, "main", "tail", "gate", account=account) as simulator:
        front = Front()
        front.show(simulator)
        try:
            yield front, simulator
        finally:
            await open_gate(simulator)


async def open_gate(simulator: Simulator) -> None:
    await simulator.primitives.bucket("gate").put("open", b"")


async def get(front: Front, statuses: list[int], times: int = 1, host: str = "localhost") -> None:
    """Send ``times`` requests of one client, one after the other."""
    for _ in range(times):
        await get_once(front, statuses, host)


async def get_once(front: Front, statuses: list[int], host: str) -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "extensions": {TARGET: b"/"},
        "query_string": b"",
        "scheme": "http",
        "http_version": "1.1",
        "headers": [(b"host", host.encode())],
        "client": ("127.0.0.1", 1),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await front(scope, receive, send)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def until_held(front: Front, simulator: Simulator, clients: int) -> None:
    """Wait until every client's request is held and all earlier invocations have ended."""
    main, tail = simulator.workers["main"], simulator.primitives.tails["tail"]
    await until(lambda: front.waiting == clients and not main.in_flight and tail.is_full)


async def test_requests_wait_while_too_many_bytes_of_traces_wait(tmp_path):
    """A Tail Worker that makes no progress: pending traces and responses are both bounded."""
    statuses: list[int] = []
    async with world(tmp_path) as (front, simulator), anyio.create_task_group() as tasks:
        for _ in range(CLIENTS):
            tasks.start_soon(get, front, statuses, 20)
        await until_held(front, simulator, CLIENTS)
        stats = (await simulator.stats())["tail"]
        # Each client may have had one response, and a request in progress, before its first trace.
        assert BOUND <= stats["pending_bytes"] <= BOUND + 2 * CLIENTS * TRACE_BYTES
        assert stats["pending"] == len(statuses)
        await open_gate(simulator)
        await until(lambda: len(statuses) == 20 * CLIENTS)
        await settle(simulator)
        stats = (await simulator.stats())["tail"]
        assert stats == {"items": 20 * CLIENTS, "lost": 0, "pending": 0, "pending_bytes": 0}
    assert set(statuses) == {200}


async def test_a_queue_batch_waits_as_requests_do(tmp_path):
    """A tailed consumer gets no batch while its Tail Worker is overloaded; afterwards all of them.

    Meanwhile the Tail Worker itself sends to that queue: it never waits for its own traces.
    """
    statuses: list[int] = []
    async with (
        world(tmp_path, queue=True) as (front, simulator),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(get, front, statuses, 20)
        await until_held(front, simulator, 1)
        before = simulator.workers["main"].outcomes["ok"]
        await simulator.primitives.queue("jobs").send(b'"a"')
        await until(lambda: any(consumer.in_flight for consumer in simulator.primitives.consumers))
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        assert simulator.workers["main"].outcomes["ok"] == before
        await open_gate(simulator)
        await until(lambda: len(statuses) == 20)
        await settle(simulator)
        assert simulator.primitives.consumers[0].delivered > 1
        assert (await simulator.stats())["tail"]["lost"] == 0


async def test_a_drain_ends_while_requests_wait(tmp_path):
    """Held requests do not count as work in progress."""
    statuses: list[int] = []
    async with world(tmp_path) as (front, simulator), anyio.create_task_group() as tasks:
        tasks.start_soon(get, front, statuses, 20)
        await until_held(front, simulator, 1)
        assert (await simulator.draining.drain(0.05)).left
        await open_gate(simulator)
        await settle(simulator)
        await until(lambda: len(statuses) == 20)


async def test_a_reload_takes_waiting_requests_along(tmp_path):
    """Held requests are served by the Simulator that takes over."""
    statuses: list[int] = []
    async with anyio.create_task_group() as tasks:
        async with world(tmp_path) as (front, simulator):
            tasks.start_soon(get, front, statuses, 10)
            await until_held(front, simulator, 1)
            front.show(None)
        before = len(statuses)
        assert before < 10
        async with simulated(tmp_path, "main", "tail", "gate") as successor:
            await open_gate(successor)
            front.show(successor)
            await until(lambda: len(statuses) == 10)
            assert successor.requests == 10 - before
    assert statuses == [200] * 10


async def test_a_request_that_waited_too_long_is_refused(tmp_path, monkeypatch):
    """A request held for HOLD_SECONDS gets 503, and no handler runs."""
    monkeypatch.setattr("edgesim.dev.front.HOLD_SECONDS", 0.01)
    statuses: list[int] = []
    async with world(tmp_path) as (front, simulator):
        await get(front, statuses, 10)
        assert statuses.count(200) + statuses.count(503) == 10
        assert front.refused == statuses.count(503) > 0
        assert simulator.requests == statuses.count(200)
        assert front.waiting == 0


async def test_unfinished_invocations_are_bounded(tmp_path, monkeypatch):
    """Requests wait while too many invocations run waitUntil work."""
    monkeypatch.setattr("edgesim.simulator.simulator.IN_FLIGHT_MAX", 3)
    write_worker(tmp_path, "main", LATER, r2_buckets=[{"binding": "B", "bucket_name": "gate"}])
    statuses: list[int] = []
    async with simulated(tmp_path, "main") as simulator, anyio.create_task_group() as tasks:
        front = Front()
        front.show(simulator)
        for _ in range(8):
            tasks.start_soon(get, front, statuses)
        await until(lambda: len(statuses) == 3 and front.waiting == 5)
        await open_gate(simulator)
        await until(lambda: len(statuses) == 8)
    assert statuses == [200] * 8


OTHER = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("ok")
"""


async def test_a_stalled_tail_worker_does_not_hold_back_other_workers(tmp_path):
    """Requests wait for the Tail Workers of their own Worker and of those that it can call."""
    statuses: dict[str, list[int]] = {"main": [], "other": [], "caller": []}
    write_workers(tmp_path)
    write_worker(tmp_path, "other", OTHER)
    write_worker(tmp_path, "caller", OTHER, services=[{"binding": "MAIN", "service": "main"}])
    names = ["main", "tail", "gate", "other", "caller"]
    async with simulated(tmp_path, *names) as simulator, anyio.create_task_group() as tasks:
        front = Front()
        front.show(simulator)
        for _ in range(CLIENTS):
            tasks.start_soon(get, front, statuses["main"], 20)
        await until_held(front, simulator, CLIENTS)
        await get(front, statuses["other"], 20, host="other.localhost")
        assert statuses["other"] == [200] * 20
        tasks.start_soon(get, front, statuses["caller"], 1, "caller.localhost")
        await until(lambda: front.waiting == CLIENTS + 1)
        assert not statuses["caller"]
        await open_gate(simulator)
        await until(lambda: len(statuses["main"]) == 20 * CLIENTS and bool(statuses["caller"]))
    assert set(statuses["main"] + statuses["caller"]) == {200}


async def test_unfinished_invocations_do_not_hold_back_other_workers(tmp_path, monkeypatch):
    """Above the limit a Worker waits that has more than an even share of it; another does not."""
    monkeypatch.setattr("edgesim.simulator.simulator.IN_FLIGHT_MAX", 6)
    write_worker(tmp_path, "main", LATER, r2_buckets=[{"binding": "B", "bucket_name": "gate"}])
    write_worker(tmp_path, "other", OTHER)
    main: list[int] = []
    other: list[int] = []
    async with (
        simulated(tmp_path, "main", "other") as simulator,
        anyio.create_task_group() as tasks,
    ):
        front = Front()
        front.show(simulator)
        for _ in range(8):
            tasks.start_soon(get, front, main)
        await until(lambda: len(main) == 6 and front.waiting == 2)
        await get(front, other, 5, host="other.localhost")
        assert other == [200] * 5
        await open_gate(simulator)
        await until(lambda: len(main) == 8)


async def test_traces_beyond_the_last_bound_are_lost_and_counted(monkeypatch):
    """Invocations that began before the bound was reached may add traces, up to a second bound."""
    monkeypatch.setattr("edgesim.runtime.tail.PENDING_BYTES_MAX", 2 * BOUND)
    consumer = TailConsumer("tail", TailConfig())
    for _ in range(100):
        logs = [TraceLog(1.0, "log", ["x" * 9_000])]
        consumer.add(TraceItem("main", {"cron": "* * * * *"}, 1.0, "ok", logs=logs))
    assert consumer.pending + consumer.lost == 100
    assert consumer.pending_bytes <= 2 * BOUND
    assert consumer.lost > 0

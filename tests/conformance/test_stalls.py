"""The event loop's longest turn during every operation of an operator, on large stores.

A turn is measured by the CPU time of the loop's own thread, which load on the machine hardly
changes: waits for the disk are in other threads (see tests/unit/test_writer_thread.py).
"""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from edgesim.backends import open_backends
from edgesim.clock import Clock
from edgesim.config import Environment, load_project
from edgesim.config.project import Overrides
from edgesim.dev.access import Access
from edgesim.dev.admin import admin_app
from edgesim.dev.front import Front
from edgesim.model import R2Object
from edgesim.observation.recent import RecentTraces
from edgesim.queues.driver import NewMessage, QueueDriver
from edgesim.r2.driver import R2Driver
from edgesim.r2.local.indexed import IndexedR2
from edgesim.simulator import Simulator, open_simulator
from edgesim.taps import Taps
from tests.simulated import write_worker

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

OBJECTS, MESSAGES, MOVED = 100_000, 200_000, 10_000
LARGE_BYTES = 100_000
TURN_MS_MAX = 50
ACCOUNT = """
workers = ["main"]
[[r2.events.notifications]]
queue = "moved"
event = "object-create"
[backends]
r2 = "file:{folder}/r2"
queues = "sqlite:{folder}/queues.db"
clickhouse = "chdb:{folder}/none"
"""
MAIN = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("ok")
"""


class MeasuredLoop(asyncio.SelectorEventLoop):
    """Record the CPU time of the longest turn since ``longest_ms`` was set to 0."""

    longest_ms = 0.0

    def _run_once(self) -> None:
        begun = time.thread_time()
        super()._run_once()  # type: ignore[misc]  # asyncio's internal step, which typeshed omits
        self.longest_ms = max(self.longest_ms, (time.thread_time() - begun) * 1000)


def measured() -> MeasuredLoop:
    """Return the running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, MeasuredLoop)
    return loop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """asyncio's loop, with the measurement."""
    return "asyncio", {"loop_factory": MeasuredLoop}


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Simulator, Front]]:
    """Run the project on its stores, with the admin endpoints."""
    project = load_project(folder, Overrides(isolation={"default": "inline"}))
    await anyio.lowlevel.checkpoint()  # the commands load it before they start the project
    measured().longest_ms = 0
    clock = Clock()
    async with (
        open_backends(project, Environment(), clock) as backends,
        open_simulator(project, backends, clock) as simulator,
    ):
        front = Front()
        front.show(simulator)
        front.admin = admin_app(
            front, Access(None, "own"), RecentTraces(), Taps(clock), lambda: True, lambda: ""
        )
        yield simulator, front


async def ask(front: Front, method: str, path: str, body: bytes = b"") -> tuple[int, int]:
    """Send a request to an admin endpoint and return the status and the size of the response."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": f"/cdn-cgi/edgesim/{path}",
        "raw_path": b"",
        "query_string": query.encode(),
        "scheme": "http",
        "http_version": "1.1",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
    }
    found = {"status": 0, "size": 0}
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await anyio.sleep_forever()
        asked = True
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        found["status"] = message.get("status", found["status"])
        found["size"] += len(message.get("body", b""))

    await front(scope, receive, send)
    return found["status"], found["size"]


async def fill_queues(driver: QueueDriver) -> None:
    """Store many small messages, some to move, and some large ones that are slow to decode."""
    for queue, count in (("many", MESSAGES), ("moved", MOVED)):
        for start in range(0, count, 5_000):
            await driver.send(
                queue,
                [
                    NewMessage(f"{queue}{start + n:030}", b'{"n":1}', "json", 4_000_000_000_000, 0)
                    for n in range(5_000)
                ],
            )
    numbers = json.dumps([1] * (LARGE_BYTES // 3)).encode()
    large = [NewMessage(f"large{n}", numbers, "json", 4_000_000_000_000, 0) for n in range(100)]
    await driver.send("large", large)


async def fill_bucket(driver: R2Driver) -> None:
    """Store many objects in the index, without blobs."""
    assert isinstance(driver, IndexedR2)
    objects = driver._objects

    def store(start: int) -> None:
        for n in range(start, start + 1000):
            version = f"{n:032x}"
            stored = R2Object(f"events/{n:07}", version, 1, version, 1_700_000_000_000)
            objects.store("events", stored, version, b"", [])

    for start in range(0, OBJECTS, 1000):
        await driver._database.write(partial(store, start))


def operation(name: str, **arguments: Any) -> tuple[str, str, bytes]:
    """Build the request of an operation."""
    return "POST", "operations", json.dumps({"operation": name, "arguments": arguments}).encode()


REQUESTS: dict[str, tuple[tuple[str, str, bytes], int]] = {
    "health": (("GET", "health", b""), 200),
    "stats": (("GET", "stats", b""), 200),
    "metrics": (("GET", "metrics", b""), 200),
    "drain": (("POST", "drain?timeout=0.1", b""), 504),
    "queue.ls": (operation("queue.ls"), 200),
    "queue.peek": (operation("queue.peek", queue="many", limit=MOVED), 200),
    "queue.peek, large bodies": (operation("queue.peek", queue="large", limit=100), 200),
    "queue.send": (operation("queue.send", queue="many", body={"a": "x" * LARGE_BYTES}), 200),
    "queue.redrive": (operation("queue.redrive", queue="moved", to="large"), 200),
    "r2 put": (("PUT", "r2?bucket=events&key=large", b"x" * 20_000_000), 200),
    "r2 get": (("GET", "r2?bucket=events&key=large", b""), 200),
    "r2.count": (operation("r2.count", bucket="events"), 200),
    "r2.ls": (operation("r2.ls", bucket="events"), 200),
    "r2.ls, prefix": (operation("r2.ls", bucket="events", prefix="events/0099"), 200),
    "r2.cp": (
        operation("r2.cp", bucket="events", key="large", to_bucket="events", to_key="copy"),
        200,
    ),
    "r2.rm": (operation("r2.rm", bucket="events", key="copy"), 200),
    "r2.requeue": (operation("r2.requeue", bucket="events"), 200),
    "queue.purge": (operation("queue.purge", queue="many"), 200),
    "stats during the removal": (("GET", "stats", b""), 200),
    "queue.send during the removal": (operation("queue.send", queue="many", body=1), 200),
}


SIZES = {
    "queue.peek": 50 * MOVED,
    "queue.peek, large bodies": 60 * LARGE_BYTES,
    "r2 get": 20_000_000,
    "r2.ls": 50 * OBJECTS,
}
"""Minimum size of the responses, in bytes."""


async def test_no_operation_holds_the_event_loop(tmp_path):
    """No turn takes more than 50 ms, with 100,000 objects and messages in any operation."""
    queues = [{"binding": name, "queue": name} for name in ("many", "moved", "large")]
    write_worker(
        tmp_path,
        "main",
        MAIN,
        queues={"producers": queues},
        r2_buckets=[{"binding": "B", "bucket_name": "events"}],
    )
    (tmp_path / "edgesim.toml").write_text(ACCOUNT.format(folder=tmp_path))
    async with running(tmp_path) as (simulator, _):
        await fill_queues(simulator.primitives.backends.queues)
        await fill_bucket(simulator.primitives.backends.r2)
    gc.collect()
    gc.freeze()  # the heap of the test run does not belong to the platform
    found: dict[str, float] = {}
    try:
        async with running(tmp_path) as (_, front):
            await anyio.lowlevel.checkpoint()
            found["start"] = measured().longest_ms
            for name, (request, status) in REQUESTS.items():
                measured().longest_ms = 0
                answered, size = await ask(front, *request)
                await anyio.lowlevel.checkpoint()
                assert (name, answered) == (name, status)
                assert size >= SIZES.get(name, 1)
                found[name] = measured().longest_ms
    finally:
        gc.unfreeze()
    for name, longest in found.items():
        print(f"{name:32} longest turn {longest:6.1f} ms of CPU time")
    assert {name: ms for name, ms in found.items() if ms > TURN_MS_MAX} == {}

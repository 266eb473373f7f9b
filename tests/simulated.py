"""A whole project in a test: generated Worker modules on a real Simulator."""

import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec

from edgesim.backends import open_backends
from edgesim.clock import Clock
from edgesim.config import Environment, load_project
from edgesim.config.project import Overrides
from edgesim.model import HttpRequest, HttpResponse, read_all
from edgesim.simulator import Simulator, open_simulator

IMPORTS = """
import asyncio, json, sys
from workers import WorkerEntrypoint, Response, Request, fetch
from js import console
"""


def write_worker(folder: Path, name: str, source: str, **settings: Any) -> None:
    """Write a Worker in its own folder; ``settings`` are keys of its wrangler file."""
    worker = folder / name
    worker.mkdir(parents=True, exist_ok=True)
    (worker / "entry.py").write_text(IMPORTS + textwrap.dedent(source))
    wrangler = {"name": name, "main": "entry.py"} | settings
    (worker / "wrangler.json").write_bytes(msgspec.json.encode(wrangler))


@asynccontextmanager
async def simulated(
    folder: Path,
    *workers: str,
    account: str = "",
    isolation: str = "inline",
    environment: str | None = None,
    clock: Clock | None = None,
    programs: Environment | None = None,
) -> AsyncIterator[Simulator]:
    """Run a project of these Workers (the first is the entry) on in-memory stores.

    ``programs``: the environment that names programs for JavaScript Workers.
    """
    names = ", ".join(f'"{name}"' for name in workers)
    (folder / "edgesim.toml").write_text(
        f"workers = [{names}]\n"
        + textwrap.dedent(account)
        + '\n[backends]\nr2 = "memory:"\nqueues = "memory:"\nkv = "memory:"\n'
        + f'clickhouse = "chdb:{folder}/none"\n'
    )
    overrides = Overrides(isolation={"default": isolation}, environment=environment)
    project = load_project(folder, overrides, programs or Environment())
    used = clock or Clock()
    async with (
        open_backends(project, Environment(), used) as backends,
        open_simulator(project, backends, used) as simulator,
    ):
        yield simulator


async def ask(
    simulator: Simulator,
    url: str = "http://x/",
    *,
    worker: str | None = None,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> tuple[int, bytes]:
    """Send a request to the project and return its status and body."""
    request = HttpRequest(method, url, list((headers or {}).items()), body)
    response: HttpResponse = await simulator.fetch(request, worker)
    return response.status, await read_all(response.body)


async def settle(simulator: Simulator) -> None:
    """Wait until the project is drained."""
    with anyio.fail_after(60):
        assert not (await simulator.draining.drain(60)).left

"""JavaScript Workers in a test: generated modules on a real Simulator, with npm's own workerd."""

import os
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgesim.config import Environment
from edgesim.errors import UsageError
from edgesim.isolates.javascript.tools import find_program
from edgesim.simulator import Simulator
from tests.simulated import simulated

MODULES = Path(__file__).parent / "portability"
"""The folder whose node_modules `make portability` fills."""
DATE = "2026-10-01"


def programs() -> Environment:
    """Return where workerd and esbuild are; without them skip the test, or fail in CI."""
    try:
        found = {name: find_program(name, None, MODULES) for name in ("workerd", "esbuild")}
    except UsageError as error:
        reason = f"{error} (make portability)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return Environment(workerd=str(found["workerd"]), esbuild=str(found["esbuild"]))


def write_javascript(
    folder: Path, name: str, source: str, *, main: str = "index.js", **settings: Any
) -> None:
    """Write a Worker in its own folder; ``settings`` are keys of its wrangler file."""
    worker = folder / name
    worker.mkdir(parents=True, exist_ok=True)
    (worker / main).parent.mkdir(parents=True, exist_ok=True)
    (worker / main).write_text(textwrap.dedent(source))
    wrangler = {"name": name, "main": main, "compatibility_date": DATE} | settings
    (worker / "wrangler.json").write_bytes(msgspec.json.encode(wrangler))


@asynccontextmanager
async def running(
    folder: Path, *workers: str, isolation: str = "warm", account: str = ""
) -> AsyncIterator[Simulator]:
    """Run a project of these Workers, in JavaScript and in Python; the first is the entry."""
    async with simulated(
        folder, *workers, isolation=isolation, account=account, programs=programs()
    ) as simulator:
        yield simulator

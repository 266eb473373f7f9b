"""One Worker per level serves all tests of a module."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.isolation.world import World, open_world


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Module-scoped, like the fixtures."""
    return "asyncio"


@pytest.fixture(scope="module")
async def process(anyio_backend: Any) -> AsyncIterator[World]:
    async with open_world("process") as world:
        yield world


@pytest.fixture(scope="module")
async def warm(anyio_backend: Any) -> AsyncIterator[World]:
    async with open_world("warm") as world:
        yield world


@pytest.fixture(scope="module")
async def inline(anyio_backend: Any) -> AsyncIterator[World]:
    async with open_world("inline") as world:
        yield world


@pytest.fixture
async def peak() -> AsyncIterator[Any]:
    """Function that returns the peak growth of the platform's memory in MB."""
    started, highest = _resident(), 0

    async def watch() -> None:
        nonlocal highest
        while True:
            highest = max(highest, _resident())
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        yield lambda: (highest - started) // (1 << 20)
        tasks.cancel_scope.cancel()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096

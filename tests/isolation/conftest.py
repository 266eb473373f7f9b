"""One Worker per level serves all tests of a module."""

from collections.abc import AsyncIterator
from typing import Any

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

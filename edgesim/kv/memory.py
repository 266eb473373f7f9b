"""``memory:``: entries in this process's memory, in the tables of the SQLite driver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edgesim.clock import Clock
from edgesim.errors import ConfigError
from edgesim.kv.driver import KvDriver
from edgesim.kv.sqlite import open_in_memory
from edgesim.urls import path_of

DETERMINISTIC = True
EMBEDDED = True
SHARED = False
DURABLE = False


@asynccontextmanager
async def open_kv(url: str, clock: Clock) -> AsyncIterator[KvDriver]:
    """An empty store."""
    if path_of(url):
        raise ConfigError("backends", "kv", f"{url!r}: memory: takes no path")
    async with open_in_memory() as driver:
        yield driver

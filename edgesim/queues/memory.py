"""``memory:``: messages in this process's memory.

The SQLite driver on a database in memory, so that both behave the same.  A store of dicts and heaps
was rejected: it would be a second implementation of ordering and leases to keep consistent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edgesim.clock import Clock
from edgesim.errors import ConfigError
from edgesim.queues.driver import QueueDriver
from edgesim.queues.sqlite.driver import open_store, removing_purged
from edgesim.urls import path_of

DETERMINISTIC = True
EMBEDDED = True
SHARED = False
DURABLE = False


@asynccontextmanager
async def open_queues(url: str, clock: Clock) -> AsyncIterator[QueueDriver]:
    """An empty store."""
    if path_of(url):
        raise ConfigError("backends", "queues", f"{url!r}: memory: takes no path")
    with open_store(":memory:", clock) as driver:
        async with removing_purged(driver):
            yield driver

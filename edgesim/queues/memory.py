"""``memory:``: messages that are gone when the process ends.

The SQLite driver on a database in memory, so that what passes here passes there: a store of dicts
and heaps was the other road, a second set of rules about order and leases to keep equal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edgesim.clock import Clock
from edgesim.errors import ConfigError
from edgesim.queues.driver import QueueDriver
from edgesim.queues.sqlite import open_store, removing_purged
from edgesim.urls import path_of

DETERMINISTIC = True


@asynccontextmanager
async def open_queues(url: str, clock: Clock) -> AsyncIterator[QueueDriver]:
    """An empty store."""
    if path_of(url):
        raise ConfigError("backends", "queues", f"{url!r}: memory: takes no path")
    with open_store(":memory:", clock) as driver:
        async with removing_purged(driver):
            yield driver

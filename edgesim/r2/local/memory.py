"""``memory:``: objects in this process's memory, for replays and tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.lowlevel

from edgesim.clock import Clock
from edgesim.database import Database
from edgesim.r2.local.blobs import Blobs
from edgesim.r2.local.indexed import IndexedR2
from edgesim.r2.local.schema import SCHEMA, prepare

DETERMINISTIC = True
EMBEDDED = True
SHARED = False
DURABLE = False

_CHUNK_BYTES = 256 * 1024


class MemoryBlobs:
    """Blobs in a dictionary."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    async def write(
        self, name: str, body: AsyncIterator[bytes], label: Callable[[], bytes]
    ) -> None:
        data = b"".join([chunk async for chunk in body])
        label()
        self._blobs[name] = data

    def read(self, name: str, offset: int, length: int) -> AsyncIterator[bytes]:
        return _chunks(self._blobs[name], offset, offset + length)

    def drop(self, name: str) -> None:
        self._blobs.pop(name, None)

    def names(self) -> Iterator[str]:
        return iter(self._blobs)

    def keep(self, name: str) -> None:
        raise AssertionError("objects in memory have no index to rebuild")

    def label(self, name: str) -> bytes | None:
        return None


async def _chunks(data: bytes, start: int, end: int) -> AsyncIterator[bytes]:
    while start < end:
        yield data[start : min(start + _CHUNK_BYTES, end)]
        start += _CHUNK_BYTES
        if start < end:
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def open_r2(url: str, clock: Clock, state: Path) -> AsyncIterator[IndexedR2]:
    """An empty store; ``url`` is ``memory:`` and ``state`` is not used."""
    database = Database(None, SCHEMA)
    try:
        prepare(database)
        yield IndexedR2(database, MemoryBlobs(), clock)
    finally:
        database.close()


_: type[Blobs] = MemoryBlobs

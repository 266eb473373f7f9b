"""A body in the platform's memory, counted as its Worker's until it has been read or dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from weakref import ref

from edgesim.errors import PlatformError
from edgesim.isolates.host.budget import budget_here
from edgesim.isolates.protocol.limits import MEMORY_EXCEEDED
from edgesim.model import Stream

HELD_BYTES_MIN = 1 << 20
"""Size of a body from which it is counted."""
_PART_BYTES = 1 << 18


class HeldBody(Stream):
    """A Stream of bytes that are in memory."""

    def __init__(self, worker: str, data: bytes) -> None:
        self._parts = _Parts(worker, data)
        super().__init__(self._parts, len(data))

    def take(self) -> bytes:
        """Return what has not been read; it is no longer counted."""
        return self._parts.take()

    def move_to(self, worker: str) -> None:
        """Count it as another Worker's, which keeps it now."""
        self._parts.holder.move_to(worker)


class _Parts(AsyncIterator[bytes]):
    def __init__(self, worker: str, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._is_evicted = False
        kept = ref(self)  # the holder outlives no body

        def evict() -> None:
            parts = kept()
            if parts is not None:
                parts.evict()

        self.holder = budget_here().holder(worker, evict)
        self.holder.add(len(data))

    def __del__(self) -> None:
        self.holder.close()

    async def __anext__(self) -> bytes:
        if self._is_evicted:
            raise PlatformError(MEMORY_EXCEEDED)
        begin = self._at
        self._at += _PART_BYTES
        part = self._data[begin : self._at]
        if not part:
            self.take()
            raise StopAsyncIteration
        return part

    def take(self) -> bytes:
        rest = self._data[self._at :] if self._at else self._data
        self._data = b""
        self._at = 0
        self.holder.close()
        return rest

    def evict(self) -> None:
        self._is_evicted = True
        self.take()

    async def aclose(self) -> None:
        """Drop the rest."""
        self.take()

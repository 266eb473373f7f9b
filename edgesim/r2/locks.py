"""Per-key locks: serialise precondition check and write."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

import anyio


class KeyLocks:
    """Locks by key; a lock exists only while a task holds or awaits it."""

    def __init__(self, released: Callable[[], None]) -> None:
        """``released`` is called after every use of a lock, whether it succeeded or raised."""
        self._locks: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._released = released

    def __len__(self) -> int:
        return len(self._locks)

    @asynccontextmanager
    async def of(self, keys: Sequence[str]) -> AsyncIterator[None]:
        """Hold the locks of these keys."""
        async with AsyncExitStack() as stack:
            for key in sorted(keys):
                lock = self._locks.setdefault(key, anyio.Lock(fast_acquire=True))
                await stack.enter_async_context(lock)
            try:
                yield
            finally:
                self._released()

"""Bodies of requests for Workers, read whole: a limit for each, and a budget for all together.

Small bodies are always read, so large ones that arrive slowly do not stop the traffic of events.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.types import Receive

BODY_BYTES_MAX = 100_000_000
"""The platform's limit of a request body on its lower plans; 413 above."""
SMALL_BYTES_MAX = 65_536
"""Of each body, what needs no room in the budget."""
ALL_BYTES_MAX = 268_435_456
"""Of all bodies in flight, what is over SMALL_BYTES_MAX."""
ROOM_SECONDS = 10.0
"""So long a body waits for others to be answered, before it is refused with 503."""


class BodyTooLargeError(Exception):
    """The body is over BODY_BYTES_MAX."""


class NoRoomError(Exception):
    """The bodies in flight left no room for this one in time."""


class Bodies:
    """The bodies in flight."""

    def __init__(self, bytes_max: int = ALL_BYTES_MAX, room_seconds: float = ROOM_SECONDS) -> None:
        self._left = bytes_max
        self._room_seconds = room_seconds
        self._freed = anyio.Event()

    @asynccontextmanager
    async def read(self, receive: Receive) -> AsyncIterator[bytes]:
        """The whole body; it counts until the block ends.

        BodyTooLargeError; NoRoomError; ConnectionResetError if the client went away before its end.
        """
        chunks: list[bytes] = []
        size = taken = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionResetError
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > BODY_BYTES_MAX:
                    raise BodyTooLargeError
                wanted = max(0, size - SMALL_BYTES_MAX) - taken
                if wanted > 0:
                    await self._take(wanted)
                    taken += wanted
                if not message.get("more_body", False):
                    break
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            yield body
        finally:
            self._give(taken)

    async def _take(self, size: int) -> None:
        with anyio.move_on_after(self._room_seconds):
            while self._left < size:
                await self._freed.wait()
            self._left -= size
            return
        raise NoRoomError

    def _give(self, size: int) -> None:
        if size:
            self._left += size
            self._freed.set()
            self._freed = anyio.Event()

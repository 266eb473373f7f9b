"""Bodies of requests to Workers, read completely: a limit for each, and a budget for all.

Small bodies need no budget, so that large bodies which arrive slowly do not block event traffic.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.types import Message, Receive

BODY_BYTES_MAX = 100_000_000
"""The platform's request body limit on its lower plans; larger bodies are answered with 413."""
SMALL_BYTES_MAX = 65_536
"""Bytes of each body that do not count against the budget."""
ALL_BYTES_MAX = 268_435_456
"""Budget for all bodies in flight, counting only bytes beyond SMALL_BYTES_MAX of each."""
ROOM_SECONDS = 10.0
"""Maximum wait for budget; then the request is refused with 503."""


class BodyTooLargeError(Exception):
    """The body is over BODY_BYTES_MAX."""


class NoRoomError(Exception):
    """The budget had no room for this body within the time limit."""


class Bodies:
    """The bodies in flight and their budget."""

    def __init__(self, bytes_max: int = ALL_BYTES_MAX, room_seconds: float = ROOM_SECONDS) -> None:
        self._left = bytes_max
        self._room_seconds = room_seconds
        self._freed = anyio.Event()

    @asynccontextmanager
    async def read(self, receive: Receive, first: Message | None = None) -> AsyncIterator[bytes]:
        """Read the whole body; it occupies the budget until the block ends.

        ``first``: the message that was already received.

        BodyTooLargeError; NoRoomError; ConnectionResetError if the client disconnects before the
        end.
        """
        chunks: list[bytes] = []
        size = taken = 0
        try:
            while True:
                message = await receive() if first is None else first
                first = None
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

"""The platform's end of a socket to another process of ours: batched frames both ways.

What is sent within one turn of the event loop leaves as one message.  A plain asyncio protocol: an
anyio stream with a task that reads it costs three times as much for a small message, and raises
InvalidStateError where its reader is cancelled in the moment something arrives.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from edgesim.isolates.wire import Frame, Message, MessageReader, encode

OnMessage = Callable[[Message], None]
OnEnd = Callable[[Exception | None], None]


class Link(asyncio.Protocol):
    """Made by ``open_link``.

    ``on_end`` is called once, with what was wrong with the peer's bytes, or None when it hung up;
    after ``close`` nothing is called any more.
    """

    def __init__(self, on_message: OnMessage, on_end: OnEnd) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self._reader = MessageReader()
        self._out: list[tuple[int, Frame]] = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._ended = False

    def send(self, invocation: int, frame: Frame) -> None:
        """Send a frame soon; to a peer that is gone it is nothing."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append((invocation, frame))

    def close(self) -> None:
        """Hang up."""
        self._ended = True
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not self._ended and self._transport is not None:
            self._transport.write(encode(Message(out)))

    # --- what the event loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has no such base

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        try:
            for message in self._reader.feed(data):
                self._on_message(message)
        except ValueError as error:
            self._end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if not self._ended:
            self.close()
            self._on_end(error)


async def open_link(sock: socket.socket, on_message: OnMessage, on_end: OnEnd) -> Link:
    """A Link over one end of a socket pair, which it owns from here on."""
    sock.setblocking(False)
    link = Link(on_message, on_end)
    await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=sock)
    return link

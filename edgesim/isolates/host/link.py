"""The platform's end of a socket to an isolate or a zygote: batched frames in both directions.

All frames sent within one turn of the event loop form one message.  Tried and dropped: an anyio
stream with a reading task.  It takes three times as long for a small message as a plain asyncio
protocol, and raises InvalidStateError if its reader is cancelled at the moment of an arrival.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import anyio

from edgesim.foreign import StoppingStream, stops_the_world
from edgesim.isolates.protocol.unsendable import UNSENDABLE, Frames, sendable
from edgesim.isolates.protocol.wire import VALUES_MAX, Frame, FrameBatch, MessageReader, encode

OnMessage = Callable[[FrameBatch], None]
OnEnd = Callable[[Exception | None], None]
TURN_SECONDS = 60.0
"""Maximum real duration of a peer's turn in virtual time."""
UNREAD_BYTES_MAX = 128 << 20
"""Maximum size of replies that an isolate has not read; it has no memory for more."""


class TooMuchError(ValueError):
    """A peer makes the platform hold more memory for it than its own limit."""


class ReceivedBatch:
    """Size of one received message.  Unanswered calls are charged to the message they came in."""

    __slots__ = ("bytes",)

    def __init__(self, size: int) -> None:
        self.bytes = size


class Link(asyncio.Protocol):
    """Connection to one peer; created by ``open_link``.

    ``on_message`` is called with each received message.  ``on_end`` is called once: with the
    protocol error of the peer, or None if the peer closed the connection.  After ``close`` neither
    is called.
    """

    def __init__(self, on_message: OnMessage, on_end: OnEnd) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self.arrival = ReceivedBatch(0)
        self._reader = MessageReader(VALUES_MAX)
        self._out: list[tuple[int, Frame]] = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._ended = False

    def send(self, invocation: int, frame: Frame) -> None:
        """Send a frame at the end of this event loop turn; discard it if the peer is gone."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append((invocation, frame))

    async def until(self, event: anyio.Event) -> None:
        """Wait for an event that ``on_message`` or ``on_end`` sets."""
        await event.wait()

    def receive_pending(self) -> None:
        """Receive pending messages now; only needed in virtual time, see SteppedLink."""

    def close(self) -> None:
        """Close the connection."""
        self._ended = True
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not self._ended and self._transport is not None:
            self._transport.write(self._encoded(out))

    def _encoded(self, out: Frames) -> bytearray:
        try:
            return encode(FrameBatch(out))
        except UNSENDABLE:
            said, answers = sendable(out)
            if answers:
                self._loop.call_soon(self._on_message, FrameBatch(answers))
            return encode(FrameBatch(said))

    def _take(self, data: bytes) -> bool:
        """Pass received messages on; return True if the peer now waits.  Raises ValueError."""
        waiting = False
        for message, size in zip(self._reader.feed(data), self._reader.sizes, strict=True):
            self.arrival = ReceivedBatch(size)
            if not self._ended:
                self._on_message(message)
            waiting = message.waiting
        return waiting

    # --- called by the event loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has no such base
        self._transport.set_write_buffer_limits(high=UNREAD_BYTES_MAX)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        try:
            self._take(data)
        except ValueError as error:
            self._end(error)

    def pause_writing(self) -> None:
        self._end(TooMuchError(f"more than {UNREAD_BYTES_MAX} bytes of answers unread"))

    def resume_writing(self) -> None:
        """Do nothing: ``pause_writing`` has closed the connection."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if not self._ended:
            self.close()
            self._on_end(error)


class SteppedLink(Link):
    """A Link in virtual time: after each message sent, the peer runs one turn.

    The platform's event loop blocks until the peer's message says that it waits, or until the peer
    closes the connection.  So a turn takes no virtual time, and no other event comes in between.
    From a peer that takes no turns, messages are received only while ``until`` waits for one.
    """

    def __init__(
        self, sock: socket.socket, on_message: OnMessage, on_end: OnEnd, *, takes_turns: bool
    ) -> None:
        super().__init__(on_message, on_end)
        self._stream = StoppingStream(sock, TURN_SECONDS)
        self._takes_turns = takes_turns

    async def until(self, event: anyio.Event) -> None:
        while self._out:
            self._flush()
        while not event.is_set() and not self._ended:
            self._receive()

    def receive_pending(self) -> None:
        # Unread reports of about 270 forks would fill the socket, and block the zygote forever.
        while not self._ended and self._stream.has_data():
            self._receive()

    def close(self) -> None:
        super().close()
        self._stream.close()

    def take_turn(self) -> None:
        """Read messages until the peer reports that it is idle."""
        while not self._ended and not self._receive():
            pass

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not out or self._ended:
            return
        try:
            self._stream.send_now(bytes(self._encoded(out)))
        except anyio.BrokenResourceError:
            self._end(None)
        if self._takes_turns:
            self.take_turn()

    def _receive(self) -> bool:
        """Receive the peer's next frames; returns True if the peer then waits for a reply."""
        waiting = False
        try:
            waiting = self._take(self._stream.receive_now())
        except ValueError as error:
            self._end(error)
        except TimeoutError:
            self._end(TimeoutError(f"its turn did not end within {TURN_SECONDS:.0f} s"))
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            self._end(None)
        return waiting


async def open_link(
    sock: socket.socket,
    on_message: OnMessage,
    on_end: OnEnd,
    *,
    takes_turns: bool = True,
    sends_first: bool = False,
) -> Link:
    """Return a Link over one end of a socket pair, which it then owns.

    ``takes_turns``: the peer reports when it waits.  ``sends_first``: it does so once after its
    start, before it receives a message.
    """
    if stops_the_world():
        stepped = SteppedLink(sock, on_message, on_end, takes_turns=takes_turns)
        if sends_first:
            stepped.take_turn()
        return stepped
    sock.setblocking(False)
    link = Link(on_message, on_end)
    await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=sock)
    return link

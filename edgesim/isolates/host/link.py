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

import anyio

from edgesim.foreign import StoppingStream, stops_the_world
from edgesim.isolates.protocol.unsendable import UNSENDABLE, Frames, sendable
from edgesim.isolates.protocol.wire import VALUES_MAX, Frame, FrameBatch, MessageReader, encode

OnMessage = Callable[[FrameBatch], None]
OnEnd = Callable[[Exception | None], None]
TURN_SECONDS = 60.0
"""Real time that a peer's turn may take where time is virtual."""
UNREAD_BYTES_MAX = 128 << 20
"""Of answers that wait for an isolate to read them: more than it has memory for."""


class TooMuchError(ValueError):
    """A peer has the platform keep more for it than it may use itself."""


class ReceivedBatch:
    """One message that has arrived, for whom what came in it is counted by: its bytes."""

    __slots__ = ("bytes",)

    def __init__(self, size: int) -> None:
        self.bytes = size


class Link(asyncio.Protocol):
    """Made by ``open_link``.

    ``on_end`` is called once, with what was wrong with the peer's bytes, or None when it hung up;
    after ``close`` nothing is called any more.
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
        """Send a frame soon; to a peer that is gone it is nothing."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append((invocation, frame))

    async def until(self, event: anyio.Event) -> None:
        """Wait for what a message of the peer, or its end, is to set."""
        await event.wait()

    def hear_news(self) -> None:
        """Take what has arrived, where no event loop does that."""

    def close(self) -> None:
        """Hang up."""
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
        """Hand on what has arrived; whether the peer waits then.  ValueError as a reader's."""
        waiting = False
        for message, size in zip(self._reader.feed(data), self._reader.sizes, strict=True):
            self.arrival = ReceivedBatch(size)
            if not self._ended:
                self._on_message(message)
            waiting = message.waiting
        return waiting

    # --- what the event loop calls ---

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
        """Too late: it has ended."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if not self._ended:
            self.close()
            self._on_end(error)


class SteppedLink(Link):
    """A Link where time is virtual: whenever it has said something, the peer has its turn.

    The world stands still until the peer's message says that it waits, or it hangs up: however
    long that takes, it takes no virtual time, and nothing overtakes.  A peer that takes no turns is
    heard when there is something to wait for.
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
            self._hear()

    def hear_news(self) -> None:
        # Unheard, the news of some 270 forks fills the socket, and the zygote waits for ever.
        while not self._ended and self._stream.has_news():
            self._hear()

    def close(self) -> None:
        super().close()
        self._stream.close()

    def take_turn(self) -> None:
        """Hear the peer out."""
        while not self._ended and not self._hear():
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

    def _hear(self) -> bool:
        """Receive the peer's next frames; returns True if the peer then waits for a reply."""
        waiting = False
        try:
            waiting = self._take(self._stream.receive_now())
        except ValueError as error:
            self._end(error)
        except TimeoutError:
            self._end(TimeoutError(f"its turn had no end in {TURN_SECONDS:.0f} s"))
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            self._end(None)
        return waiting


async def open_link(
    sock: socket.socket,
    on_message: OnMessage,
    on_end: OnEnd,
    *,
    takes_turns: bool = True,
    speaks_first: bool = False,
) -> Link:
    """A Link over one end of a socket pair, which it owns from here on.

    ``takes_turns``: the peer says when it waits; ``speaks_first``: it does so before it is asked.
    """
    if stops_the_world():
        stepped = SteppedLink(sock, on_message, on_end, takes_turns=takes_turns)
        if speaks_first:
            stepped.take_turn()
        return stepped
    sock.setblocking(False)
    link = Link(on_message, on_end)
    await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=sock)
    return link

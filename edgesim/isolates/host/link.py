"""The platform's end of a socket to an isolate or a zygote: batched frames in both directions.

All frames sent within one turn of the event loop form one message.  Tried and dropped: an anyio
stream with a reading task.  It takes three times as long for a small message as a plain asyncio
protocol, and raises InvalidStateError if its reader is cancelled at the moment of an arrival.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import cast

import anyio

from edgesim.foreign import StoppingStream, stops_the_world
from edgesim.isolates.host.budget import budget_here
from edgesim.isolates.host.held_body import HeldBody
from edgesim.isolates.host.intake import Intake, ReceivedBatch
from edgesim.isolates.protocol.unsendable import UNSENDABLE, Frames, sendable
from edgesim.isolates.protocol.wire import MESSAGE_BYTES_MAX, Frame, FrameBatch, encode
from edgesim.model import Body

OnMessage = Callable[[FrameBatch], None]
OnEnd = Callable[[Exception | None], None]
TURN_SECONDS = 60.0
"""Maximum real duration of a peer's turn in virtual time."""
UNREAD_BYTES_MAX = 128 << 20
"""Maximum size of replies that an isolate has not read; it has no memory for more."""
UNREAD_BYTES_HIGH = 1 << 20
"""Size of unread replies from which further calls wait."""
CONTROL_BYTES_MAX = 1 << 20
"""Maximum size of a zygote's message."""
_HELD_BYTES = 1 << 18
"""Bytes of a peer's calls and replies up to which it is read while there is no room."""
_LIGHT_BYTES = 8192
"""Bytes of messages that are read without a look at the time."""
_HEAVY_SECONDS = 0.005
"""CPU time of reading a peer's messages after which others have their turn first."""


_NOTHING = ReceivedBatch(0, None)


class TooMuchError(ValueError):
    """A peer makes the platform hold more memory for it than its own limit."""


class Link(asyncio.Protocol):
    """Connection to one peer; created by ``open_link``.

    ``on_message`` is called with each received message.  ``on_end`` is called once: with the
    protocol error of the peer, or None if the peer closed the connection.  After ``close`` neither
    is called.
    """

    def __init__(self, worker: str, on_message: OnMessage, on_end: OnEnd, bytes_max: int) -> None:
        self.arrival = _NOTHING
        self._on_message = on_message
        self._on_end = on_end
        self._budget = budget_here()
        self._holder = self._budget.holder(worker, self._evict)
        self._intake = Intake(bytes_max)
        self._unread = 0
        """Bytes of unread replies that are occupied."""
        self._drained = asyncio.Event()
        self._drained.set()
        self._out: list[tuple[int, Frame]] = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._paused = False
        """True while the peer has to wait until more is read."""
        self._ended = False

    def send(self, invocation: int, frame: Frame) -> None:
        """Send a frame at the end of this event loop turn; discard it if the peer is gone."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append((invocation, frame))

    async def until(self, event: anyio.Event) -> None:
        """Wait for an event that ``on_message`` or ``on_end`` sets."""
        await event.wait()

    def held(self, body: bytes) -> Body:
        """Return a large body of a message, counted beyond the end of the link."""
        return HeldBody(self._holder.worker, body)

    async def drained(self) -> None:
        """Wait until the peer has read most of what was sent to it."""
        await asyncio.sleep(0)  # replies of this turn are sent first
        await self._drained.wait()

    def receive_pending(self) -> None:
        """Receive pending messages now; only needed in virtual time, see SteppedLink."""

    def close(self) -> None:
        """Close the connection."""
        self._ended = True
        self._holder.close()
        self._intake.clear()
        self._drained.set()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not self._ended and self._transport is not None:
            self._transport.write(self._encoded(out))
            self._count_unread(self._transport.get_write_buffer_size())

    def _count_unread(self, size: int) -> None:
        if size > UNREAD_BYTES_MAX:
            self._end(TooMuchError(f"more than {UNREAD_BYTES_MAX} bytes of answers unread"))
            return
        if size != self._unread:
            self._holder.add(size - self._unread)
            self._unread = size

    def _encoded(self, out: Frames) -> bytearray:
        try:
            return encode(FrameBatch(out))
        except UNSENDABLE:
            said, answers = sendable(out)
            if answers:
                self._loop.call_soon(self._on_message, FrameBatch(answers))
            return encode(FrameBatch(said))

    def _take(self) -> bool:
        """Pass on messages that have arrived, as far as there is room for them.

        True if the peer now waits; ValueError if it has sent what is no message.
        """
        waiting = False
        while not self._ended:
            found = self._intake.take()
            if found is not None:
                waiting = found[0].waiting
                self._pass_on(*found)
                if not self._intake.size:
                    break
                if self._holder.size > _HELD_BYTES and not self._holder.add_if_room(0):
                    self._pause()
                    self._holder.wait(0, self._go_on)
                    break
            elif not self._intake.wanted:
                break
            elif self._holder.add_if_room(self._intake.wanted):
                self._intake.grant()
            else:
                self._pause()
                self._holder.wait(self._intake.wanted, self._go_on)
                break
        return waiting

    def _pass_on(self, message: FrameBatch, size: int, is_granted: bool) -> None:
        self.arrival = arrival = ReceivedBatch(size, self._holder, is_granted=is_granted)
        try:
            self._on_message(message)
        finally:
            self.arrival = _NOTHING
            if is_granted:
                arrival.release()

    def _go_on(self, has_room: bool) -> None:
        """Read on after a wait for room."""
        if has_room:
            self._intake.grant()
            self._read_on()

    def _read_on(self) -> None:
        self._paused = False
        if not self._ended and self._transport is not None:
            self._transport.resume_reading()
            self._read()

    def _pause(self) -> None:
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def _read(self) -> None:
        """Read messages, then let the peer wait if they took long."""
        if self._paused:
            return  # the event loop had this part already
        if self._budget.busy_until > self._loop.time() and self._intake.is_large:
            self._rest()
            return
        if self._intake.size <= _LIGHT_BYTES:
            self._take_valid()
            return
        began, cpu_began = time.monotonic(), time.thread_time()
        self._take_valid()
        if self._ended or self._paused:
            return
        if time.thread_time() - cpu_began > _HEAVY_SECONDS:
            self._budget.rest_after(time.monotonic() - began)
            self._rest()

    def _take_valid(self) -> None:
        try:
            self._take()
        except ValueError as error:
            self._end(error)

    def _rest(self) -> None:
        self._pause()
        self._loop.call_at(self._budget.busy_until, self._read_on)

    # --- called by the event loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has no such base
        self._transport.set_write_buffer_limits(high=UNREAD_BYTES_HIGH)

    def data_received(self, data: bytes) -> None:
        if not self._ended:
            self._intake.feed(data)
            self._read()

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()
        if not self._ended and self._transport is not None:
            self._count_unread(self._transport.get_write_buffer_size())

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(None)

    def _evict(self) -> None:
        self._end(TooMuchError("the memory of all isolates is full"))

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
        self,
        sock: socket.socket,
        worker: str,
        on_message: OnMessage,
        on_end: OnEnd,
        bytes_max: int,
        *,
        takes_turns: bool,
    ) -> None:
        super().__init__(worker, on_message, on_end, bytes_max)
        self._stream = StoppingStream(sock, TURN_SECONDS)
        self._takes_turns = takes_turns

    def held(self, body: bytes) -> Body:
        return body  # nothing is limited in virtual time

    async def drained(self) -> None:
        """Do nothing: the peer reads all in its turn."""

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
            self._intake.feed(self._stream.receive_now())
            waiting = self._take()
        except ValueError as error:
            self._end(error)
        except TimeoutError:
            self._end(TimeoutError(f"its turn did not end within {TURN_SECONDS:.0f} s"))
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            self._end(None)
        return waiting


async def open_link(
    sock: socket.socket,
    worker: str,
    on_message: OnMessage,
    on_end: OnEnd,
    *,
    bytes_max: int = MESSAGE_BYTES_MAX,
    takes_turns: bool = True,
    sends_first: bool = False,
) -> Link:
    """Return a Link over one end of a socket pair, which it then owns.

    ``bytes_max``: maximum size of a message.  ``takes_turns``: the peer reports when it waits.
    ``sends_first``: it does so once after its start, before it receives a message.
    """
    if stops_the_world():
        stepped = SteppedLink(sock, worker, on_message, on_end, bytes_max, takes_turns=takes_turns)
        if sends_first:
            stepped.take_turn()
        return stepped
    sock.setblocking(False)
    link = Link(worker, on_message, on_end, bytes_max)
    await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=sock)
    return link

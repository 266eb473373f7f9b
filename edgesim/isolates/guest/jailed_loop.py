"""Event loop of a jailed isolate, whose only connection is one socket to the platform.

When no callback is ready, the loop sends its pending frames and waits for a message.  So an isolate
runs in turns, and a replay can step it.  The loop's clock is the platform's and advances only when
a message arrives.  A timer is a call to the platform (``sleepUntil``), so timers follow virtual
time too.  The reply to it means that the time has come; the isolate compares no clocks.  The loop
has no selector and no self-pipe: it takes 14-23 us to create, asyncio's own 75 us.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol

from edgesim.isolates.guest.entrypoints import Entrypoints
from edgesim.isolates.guest.event_loop import IsolateLoop, drop_unawaited, sleep_seconds
from edgesim.isolates.guest.serve import (
    Channel,
    CpuLimitExceeded,
    Serving,
    failed,
    serve,
)
from edgesim.isolates.protocol.limits import CPU_EXCEEDED, HUNG
from edgesim.isolates.protocol.unsendable import UNSENDABLE, sendable
from edgesim.isolates.protocol.wire import (
    Call,
    Done,
    Failure,
    Frame,
    FrameBatch,
    Invoke,
    MessageReader,
    Reply,
    encode,
    ready_made,
)

PLATFORM = 0
"""Invocation number of frames that concern the isolate and no invocation."""
TIMER_SECONDS_MAX = 86_400.0
"""Maximum time for which an idle loop sleeps, as in asyncio."""


class HungError(RuntimeError):
    """The handler can never continue: no callback is ready, no timer set, no reply awaited."""


class Socket(Protocol):
    """Methods of a socket that this module uses."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Receive bytes; ``b""`` once the platform has closed the connection."""

    def sendall(self, data: bytes | bytearray, /) -> None:
        """Send all of the data."""


class Wire:
    """The isolate's socket, with the frames waiting to be sent and those already received."""

    def __init__(self, sock: Socket) -> None:
        self._sock = sock
        self._reader = MessageReader()
        self._out: list[tuple[int, Frame]] = []
        self._in: list[tuple[int, Frame]] = []

    def put(self, invocation: int, frame: Frame) -> None:
        """Queue a frame, to be sent at the next flush (at the latest at the end of the turn)."""
        self._out.append((invocation, frame))

    def put_encoded(self, invocation: int, frame: bytes) -> None:
        """Queue an encoded frame; ValueError if it is not exactly one value."""
        self._out.append((invocation, ready_made(frame)))  # type: ignore[arg-type]

    def flush(self, *, waiting: bool = False) -> None:
        """Send all queued frames; replace those that cannot be encoded.

        ``waiting`` reports that the isolate is idle, unless received frames are still unread.
        """
        waiting = waiting and not self._in
        if self._out or waiting:
            try:
                data = encode(
                    FrameBatch(self._out, waiting)
                )  # if memory is full here, the frames stay queued
            except UNSENDABLE:
                self._out, answers = sendable(self._out)
                self._in += answers
                data = encode(FrameBatch(self._out, waiting and not answers))
            self._out = []
            self._sock.sendall(data)

    def flush_now(self) -> None:
        """Send immediately from a signal handler; skip if encoding fails at this stack depth."""
        if self._out:
            with suppress(*UNSENDABLE):
                data = encode(FrameBatch(self._out))
                self._out = []
                self._sock.sendall(data)

    def put_back(self, frames: list[tuple[int, Frame]]) -> None:
        """Return frames to the input; the next ``receive`` returns them again."""
        self._in += frames

    def receive(self, *, wait: bool) -> list[tuple[int, Frame]]:
        """Return the frames that arrived, with ``wait`` at least one.

        The process exits if the platform has closed the connection.
        """
        frames, self._in = self._in, []
        while not frames:
            try:
                data = self._sock.recv(1 << 16, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if not data:
                os._exit(0)
            for message in self._reader.feed(data):
                frames += message.frames
        return frames


class WireLoop(Protocol):
    """An event loop that waits for messages of the platform; see ``Turn``."""

    wire: Wire

    def time(self) -> float:
        """Return the platform's steady clock (Unix seconds) as of its last message."""

    def awaits_message(self) -> bool:
        """Return True if a message of the platform can make a callback ready."""


class Turn:
    """Replaces the selector of asyncio's loop: each ``select`` ends one turn of the isolate."""

    def __init__(self, loop: WireLoop) -> None:
        self._loop = loop
        self._wakes = itertools.count(1)
        self._asked = 0
        self._wake_at: float | None = None

    def select(self, timeout: float | None) -> list[tuple[int, Frame]]:
        wire = self._loop.wire
        if timeout is not None and timeout <= 0:
            wire.flush()
            return wire.receive(wait=False) if self._loop.awaits_message() else []
        if timeout is not None:
            self._wake(self._loop.time() + min(timeout, TIMER_SECONDS_MAX))
        elif not self._loop.awaits_message():
            raise HungError(HUNG)
        wire.flush(waiting=True)
        return wire.receive(wait=True)

    def _wake(self, when: float) -> None:
        """Set the isolate's timer at the platform to ``when``, unless it fires earlier anyway."""
        if self._wake_at is None or when < self._wake_at:
            self._ask(when)

    def _ask(self, when: float) -> None:
        self._asked = next(self._wakes)
        self._wake_at = when
        self._loop.wire.put(PLATFORM, Call(self._asked, "", "sleepUntil", [when]))

    def timer_fired(self, reply: Reply) -> float:
        """Return the time of the timer that fired; 0.0 if it has been set again since."""
        if reply.id != self._asked or self._wake_at is None:
            return 0.0
        when, self._wake_at = self._wake_at, None
        return when

    def sleep(self, until: float) -> list[tuple[int, Frame]]:
        """Block until that time; return the frames that arrived meanwhile."""
        self._ask(until)
        arrived: list[tuple[int, Frame]] = []
        while True:
            self._loop.wire.flush(waiting=True)
            new = self._loop.wire.receive(wait=True)
            arrived += new
            if any(at == PLATFORM and getattr(frame, "id", 0) == self._asked for at, frame in new):
                return arrived

    def close(self) -> None:
        """Do nothing: there is no selector to close."""


class TurnLoop(IsolateLoop):
    """asyncio's event loop on a Wire, which is set after the loop's creation."""

    wire: Wire

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[int, SocketChannel] = {}
        self._selector = Turn(self)

    def begin(self, invoke: Invoke) -> None:
        """Reset the loop for a new invocation, at the invocation's time."""
        self.lines.clear()
        self.now, self.steady = invoke.now, invoke.steady

    def sleep(self, seconds: float) -> None:
        """Block, as ``time.sleep`` does; both clocks advance by at least ``seconds``."""
        seconds = sleep_seconds(seconds)
        now, until = self.now + seconds, self.steady + seconds
        arrived = self._selector.sleep(until)
        for _, frame in arrived:
            if isinstance(frame, Invoke | Reply):
                self.set_time(frame.now, frame.steady)
        self.set_time(now, until)
        self.wire.put_back(arrived)

    def awaits_message(self) -> bool:
        return any(line.replies for line in self.lines.values())

    def _process_events(self, event_list: Sequence[tuple[int, Frame]]) -> None:
        for invocation, frame in event_list:
            if not isinstance(frame, Reply):
                raise TypeError(f"unexpected {type(frame).__name__} from the platform")
            self.set_time(frame.now, frame.steady)
            line = self.lines.get(invocation)
            if invocation == PLATFORM:
                self.steady = max(self.steady, self._selector.timer_fired(frame))
            elif line is not None:
                line.take(frame)


class SocketChannel(Channel):
    """Channel of one invocation on the loop's Wire.

    ``eager`` sends log lines immediately, so that they are not lost if the process crashes.
    """

    def __init__(self, loop: TurnLoop, invocation: int, *, eager: bool) -> None:
        self.replies: dict[int, asyncio.Future[Reply]] = {}
        self._loop = loop
        self._invocation = invocation
        self._eager = eager
        loop.lines[invocation] = self

    def now(self) -> float:
        return self._loop.now

    def steady(self) -> float:
        return self._loop.time()

    def sleep(self, seconds: float) -> None:
        self._loop.sleep(seconds)

    def send(self, frame: Frame) -> None:
        """Send a frame that has no reply."""
        self._loop.wire.put(self._invocation, frame)
        if self._eager:
            self._loop.wire.flush_now()

    def ask(self, call: Call) -> Awaitable[Reply]:
        self._loop.wire.put(self._invocation, call)
        reply: asyncio.Future[Reply] = self._loop.create_future()
        self.replies[call.id] = reply
        return reply

    def take(self, reply: Reply) -> None:
        """Pass a received reply to the call that awaits it."""
        waiting = self.replies.pop(reply.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)


def run_once(loop: TurnLoop, sock: Socket, entries: Entrypoints, env: Any) -> None:
    """Receive an Invoke, run the invocation, send its Done."""
    wire = loop.wire = Wire(sock)
    number, invoke = wire.receive(wait=True)[0]
    if not isinstance(invoke, Invoke):
        raise TypeError(f"the platform began with {type(invoke).__name__}")
    before = time.thread_time()  # with a timer set, the process's clock advances only in ticks
    loop.begin(invoke)
    serving = Serving(SocketChannel(loop, number, eager=True), invoke.seed)
    try:
        task = loop.create_task(
            serve(invoke, lambda: entries, lambda: env, serving), name=invoke.handler
        )
        done = loop.run_until_complete(task)
    except HungError as error:
        hung = Done("exception", [Failure("Error", str(error))])
        done = hung if loop.lost_error is None else failed(loop.lost_error)
    except BaseException as error:  # noqa: BLE001 (SystemExit in a task, CPU time between two steps)
        done = failed(error)
    done.cpu_ms = (time.thread_time() - before) * 1000
    wire.put(number, done)
    wire.flush(waiting=True)


def wait_for_hang_up(sock: socket.socket) -> None:
    """Read and discard data until the platform closes the connection.

    If the process exited with unread data, such as an unawaited reply, the kernel would reset the
    connection and discard the isolate's last frames.
    """
    while sock.recv(1 << 16):
        pass


WHOLE = {
    drop_unawaited.__code__,  # also called from destructors
    *(
        each.__code__
        for each in (Wire.put, Wire.flush, Wire.flush_now, Wire.put_back, Wire.receive)
    ),
    *(
        each.__code__
        for each in (TurnLoop.sleep, IsolateLoop.call_at, SocketChannel.ask, SocketChannel.send)
    ),
}
"""Code that a signal must not interrupt: a message would be sent in part, a timer set in part."""


def raise_out_of_time(number: int, frame: FrameType | None) -> None:
    """Handle SIGPROF in a process that serves one invocation: raise CpuLimitExceeded.

    Does nothing while code of ``WHOLE`` runs; the signal repeats.
    """
    inner = frame
    while inner is not None:
        if inner.f_code in WHOLE:
            return
        inner = inner.f_back
    raise CpuLimitExceeded(CPU_EXCEEDED)

"""The event loop of a jailed isolate: its whole outside world is one socket to the platform.

When nothing is ready the loop sends what it has to say and waits for a message: so an isolate moves
in turns, and can be stepped.  Its clock is the platform's and moves only when a message arrives; a
timer is a question to the platform (``sleepUntil``), so it follows virtual time too.  The answer to
it means that the time has come: the isolate compares no clocks.  There is no
selector and no self-pipe: such a loop costs 14-23 us to make, a stock one 75 us.
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

from edgesim.isolates.guest.event_loop import IsolateLoop, sleep_seconds, unheard
from edgesim.isolates.guest.serve import (
    Channel,
    CpuLimitExceeded,
    Entrypoints,
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
"""The invocation number of what is the isolate's own business."""
TIMER_SECONDS_MAX = 86_400.0
"""A loop with nothing to do wakes after this long at the latest, as asyncio's own does."""


class HungError(RuntimeError):
    """Nothing is ready, no timer is set, no answer is awaited: the handler can never go on."""


class Socket(Protocol):
    """As much of a socket as is needed here."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Receive bytes; ``b""`` once the platform has closed the connection."""

    def sendall(self, data: bytes | bytearray, /) -> None:
        """All of it."""


class Wire:
    """The isolate's socket: what it has to say, gathered, and what it is told."""

    def __init__(self, sock: Socket) -> None:
        self._sock = sock
        self._reader = MessageReader()
        self._out: list[tuple[int, Frame]] = []
        self._in: list[tuple[int, Frame]] = []

    def put(self, invocation: int, frame: Frame) -> None:
        """Say it at the end of the turn, or at the next flush."""
        self._out.append((invocation, frame))

    def put_encoded(self, invocation: int, frame: bytes) -> None:
        """The same of an encoded frame; ValueError if it is not exactly one value."""
        self._out.append((invocation, ready_made(frame)))  # type: ignore[arg-type]

    def flush(self, *, waiting: bool = False) -> None:
        """Say what there is to say; what cannot be encoded is replaced.

        Who has something yet to receive does not say that it waits.
        """
        waiting = waiting and not self._in
        if self._out or waiting:
            try:
                data = encode(
                    FrameBatch(self._out, waiting)
                )  # nothing is lost where memory is full
            except UNSENDABLE:
                self._out, answers = sendable(self._out)
                self._in += answers
                data = encode(FrameBatch(self._out, waiting and not answers))
            self._out = []
            self._sock.sendall(data)

    def hurry(self) -> None:
        """Say it now, if it can be encoded so deep inside of worker code."""
        if self._out:
            with suppress(*UNSENDABLE):
                data = encode(FrameBatch(self._out))
                self._out = []
                self._sock.sendall(data)

    def keep(self, frames: list[tuple[int, Frame]]) -> None:
        """Frames to be received again."""
        self._in += frames

    def receive(self, *, wait: bool) -> list[tuple[int, Frame]]:
        """Frames that arrived; with ``wait`` at least one.  The process ends with the platform."""
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


class Speaker(Protocol):
    """An event loop that takes turns on a wire."""

    wire: Wire

    def time(self) -> float:
        """The platform's steady clock as of its last word."""

    def listens(self) -> bool:
        """True if a message of the platform is awaited."""


class Turn:
    """Stands where asyncio's loop has its selector: to select is to take a turn."""

    def __init__(self, loop: Speaker) -> None:
        self._loop = loop
        self._wakes = itertools.count(1)
        self._asked = 0
        self._wake_at: float | None = None

    def select(self, timeout: float | None) -> list[tuple[int, Frame]]:
        wire = self._loop.wire
        if timeout is not None and timeout <= 0:
            wire.flush()
            return wire.receive(wait=False) if self._loop.listens() else []
        if timeout is not None:
            self._wake(self._loop.time() + min(timeout, TIMER_SECONDS_MAX))
        elif not self._loop.listens():
            raise HungError(HUNG)
        wire.flush(waiting=True)
        return wire.receive(wait=True)

    def _wake(self, when: float) -> None:
        """Have the platform's one timer set to ``when``, unless it rings by then anyway."""
        if self._wake_at is None or when < self._wake_at:
            self._ask(when)

    def _ask(self, when: float) -> None:
        self._asked = next(self._wakes)
        self._wake_at = when
        self._loop.wire.put(PLATFORM, Call(self._asked, "", "sleepUntil", [when]))

    def rung(self, reply: Reply) -> float:
        """The time that has come; 0.0 for the answer to a question that was asked anew since."""
        if reply.id != self._asked or self._wake_at is None:
            return 0.0
        when, self._wake_at = self._wake_at, None
        return when

    def sleep(self, until: float) -> list[tuple[int, Frame]]:
        """Wait for that time and nothing else; what arrives meanwhile is returned."""
        self._ask(until)
        arrived: list[tuple[int, Frame]] = []
        while True:
            self._loop.wire.flush(waiting=True)
            new = self._loop.wire.receive(wait=True)
            arrived += new
            if any(at == PLATFORM and getattr(frame, "id", 0) == self._asked for at, frame in new):
                return arrived

    def close(self) -> None:
        """Nothing to close."""


class TurnLoop(IsolateLoop):
    """asyncio on the wire, which may be given later than the loop is made."""

    wire: Wire

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[int, SocketChannel] = {}
        self._selector = Turn(self)

    def begin(self, invoke: Invoke) -> None:
        """Nothing has been asked yet, and the time is that of the invocation."""
        self.lines.clear()
        self.now, self.steady = invoke.now, invoke.steady

    def sleep(self, seconds: float) -> None:
        """Block, as ``time.sleep`` does; both clocks have moved on by so much at least."""
        seconds = sleep_seconds(seconds)
        now, until = self.now + seconds, self.steady + seconds
        arrived = self._selector.sleep(until)
        for _, frame in arrived:
            if isinstance(frame, Invoke | Reply):
                self.tell_time(frame.now, frame.steady)
        self.tell_time(now, until)
        self.wire.keep(arrived)

    def listens(self) -> bool:
        return any(line.replies for line in self.lines.values())

    def _process_events(self, event_list: Sequence[tuple[int, Frame]]) -> None:
        for invocation, frame in event_list:
            if not isinstance(frame, Reply):
                raise TypeError(f"unexpected {type(frame).__name__} from the platform")
            self.tell_time(frame.now, frame.steady)
            line = self.lines.get(invocation)
            if invocation == PLATFORM:
                self.steady = max(self.steady, self._selector.rung(frame))
            elif line is not None:
                line.take(frame)


class SocketChannel(Channel):
    """One invocation's share of the wire."""

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
        """``eager``: out at once, so that what was said is known even if the process dies."""
        self._loop.wire.put(self._invocation, frame)
        if self._eager:
            self._loop.wire.hurry()

    def ask(self, call: Call) -> Awaitable[Reply]:
        self._loop.wire.put(self._invocation, call)
        reply: asyncio.Future[Reply] = self._loop.create_future()
        self.replies[call.id] = reply
        return reply

    def take(self, reply: Reply) -> None:
        """An answer has come."""
        waiting = self.replies.pop(reply.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)


def run_once(loop: TurnLoop, sock: Socket, entries: Entrypoints, env: Any) -> None:
    """One invocation: Invoke, serve, Done."""
    wire = loop.wire = Wire(sock)
    number, invoke = wire.receive(wait=True)[0]
    if not isinstance(invoke, Invoke):
        raise TypeError(f"the platform began with {type(invoke).__name__}")
    before = time.thread_time()  # with a timer set, the process's clock stands still between ticks
    loop.begin(invoke)
    serving = Serving(SocketChannel(loop, number, eager=True), invoke.seed)
    try:
        task = loop.create_task(
            serve(invoke, lambda: entries, lambda: env, serving), name=invoke.handler
        )
        done = loop.run_until_complete(task)
    except HungError as error:
        hung = Done("exception", [Failure("Error", str(error))])
        done = hung if loop.unheard is None else failed(loop.unheard)
    except BaseException as error:  # noqa: BLE001 (SystemExit in a task, CPU time between two steps)
        done = failed(error)
    done.cpu_ms = (time.thread_time() - before) * 1000
    wire.put(number, done)
    wire.flush(waiting=True)


def wait_for_hang_up(sock: socket.socket) -> None:
    """Read until the platform has nothing more to say.

    A process that ends with something unread, as an answer that nobody awaits, would have the
    kernel reset the connection, and the platform would not hear what was said last.
    """
    while sock.recv(1 << 16):
        pass


WHOLE = {
    unheard.__code__,  # which destructors call too
    *(each.__code__ for each in (Wire.put, Wire.flush, Wire.hurry, Wire.keep, Wire.receive)),
    *(
        each.__code__
        for each in (TurnLoop.sleep, IsolateLoop.call_at, SocketChannel.ask, SocketChannel.send)
    ),
}
"""Code that no signal may leave half done: half a message sent, a timer half in its place."""


def raise_out_of_time(number: int, frame: FrameType | None) -> None:
    """Handle SIGPROF in a process that serves one invocation; the signal repeats."""
    inner = frame
    while inner is not None:
        if inner.f_code in WHOLE:
            return
        inner = inner.f_back
    raise CpuLimitExceeded(CPU_EXCEEDED)

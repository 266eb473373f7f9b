"""The event loop of a forked isolate: its whole outside world is one socket to the platform.

When nothing is ready the loop sends what it has to say and waits for a frame: so an isolate moves
in turns, and can be stepped.  Its clock is the platform's and moves only when a frame arrives; a
timer is a question to the platform (``sleepUntil``), so it follows virtual time too.  There is no
selector and no self-pipe: such a loop costs 14-23 us to make, a stock one 75 us.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Awaitable
from types import ModuleType
from typing import Any

from edgesim.isolates.inside import Channel, entrypoint, serve
from edgesim.isolates.wire import Call, Done, Failure, Frame, FrameReader, Invoke, Reply, encode

HUNG = (
    "The Workers runtime canceled this request because it detected that your Worker's code had "
    "hung and would never generate a response."
)


class HungError(RuntimeError):
    """Nothing is ready, no timer is set, no answer is awaited: the handler can never go on."""


class SocketChannel(Channel):
    """Frames over the isolate's socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = FrameReader()
        self._out = bytearray()
        self.replies: dict[int, asyncio.Future[Reply]] = {}

    def send(self, frame: Frame) -> None:
        """Out at once: what an isolate said is known even if it dies the next moment."""
        self._out += encode(frame)
        self.flush()

    def ask(self, call: Call) -> Awaitable[Reply]:
        self._out += encode(call)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.replies[call.id] = reply
        return reply

    def flush(self) -> None:
        if self._out:
            self._sock.sendall(self._out)
            self._out.clear()

    def receive(self, *, wait: bool) -> list[Frame]:
        """Frames that arrived; with ``wait`` at least one.  The process ends with the platform."""
        frames: list[Frame] = []
        while not frames:
            try:
                data = self._sock.recv(1 << 16, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if not data:
                os._exit(0)
            frames = self._reader.feed(data)
        return frames


class _Turn:
    """Stands where asyncio's loop has its selector: to select is to take a turn."""

    def __init__(self, loop: TurnLoop, channel: SocketChannel) -> None:
        self._loop = loop
        self._channel = channel
        self._wakes = itertools.count(-1, -1)
        self._wake_at: float | None = None

    def select(self, timeout: float | None) -> list[Frame]:
        if timeout is not None and timeout <= 0:
            self._channel.flush()
            return self._channel.receive(wait=False) if self._channel.replies else []
        if timeout is None and not self._channel.replies:
            raise HungError(HUNG)
        if timeout is not None:
            self._wake(self._loop.time() + timeout)
        self._channel.flush()
        return self._channel.receive(wait=True)

    def _wake(self, when: float) -> None:
        """Ask to be woken; an answer that comes when it is not needed any more does no harm."""
        if self._wake_at is None or when < self._wake_at or self._wake_at <= self._loop.time():
            self._wake_at = when
            self._channel.send(Call(next(self._wakes), "", "sleepUntil", [when]))

    def close(self) -> None:
        """Nothing to close."""


class TurnLoop(asyncio.BaseEventLoop):
    """asyncio on the channel."""

    def __init__(self, channel: SocketChannel, now: float) -> None:
        super().__init__()
        self._channel = channel
        self._now = now
        self._selector = _Turn(self, channel)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """The platform's time (Unix seconds) as of the last frame."""
        return self._now

    def _process_events(self, event_list: list[Frame]) -> None:
        for frame in event_list:
            if not isinstance(frame, Reply):
                raise TypeError(f"unexpected {type(frame).__name__} from the platform")
            self._now = max(self._now, frame.now)
            waiting = self._channel.replies.pop(frame.id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(frame)

    def _write_to_self(self) -> None:
        raise RuntimeError("threads cannot wake an isolate's event loop")


def run_fork(sock: socket.socket, module: ModuleType, env: Any) -> None:
    """The life of a fork: wait for Invoke, serve it, say Done.  The caller ends the process."""
    channel = SocketChannel(sock)
    invoke = channel.receive(wait=True)[0]
    if not isinstance(invoke, Invoke):
        raise TypeError(f"the platform began with {type(invoke).__name__}")
    loop = TurnLoop(channel, invoke.now)
    asyncio.set_event_loop(loop)
    try:
        done = loop.run_until_complete(serve(invoke, entrypoint(module), env, channel))
    except HungError as error:
        done = Done("exception", [Failure("Error", str(error))])
    channel.send(done)

"""Sockets of a workerd process where time is virtual: they are read in turns.

Whenever the platform has written something, workerd has its turn: the event loop stands still until
every invocation in the process has said that it waits, which takes no virtual time.  The order of
arrival on several connections is the machine's.  So workerd gets one message at a time, and the
next one only when it waits again; and what it says meanwhile is handed on at the end of the turn,
ordered by invocation and number.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from edgesim.foreign import StoppingLoop
from edgesim.isolates.javascript.http import WorkerdConnection

TURN_SECONDS = 60.0
"""Real time that a turn may take."""
_LOOK_MS = 100
_READ_BYTES = 1 << 18

Key = tuple[str, int]
Protocols = Callable[[], WorkerdConnection]


class _SteppedTransport:
    """The part of asyncio's Transport that the protocols of ``http`` use."""

    def __init__(self, sock: socket.socket, protocol: WorkerdConnection, turns: Turns) -> None:
        self._socket = sock
        self._protocol = protocol
        self._turns = turns
        self._closed = False

    def write(self, data: bytes) -> None:
        self._turns.say(lambda: self._send(data))

    def close(self) -> None:
        self._turns.say(lambda: self._lose(None))

    def is_reading(self) -> bool:
        """True: what arrives is always read."""
        return True

    def pause_reading(self) -> None:
        """Do nothing: bodies are small enough for memory in a replay."""

    def resume_reading(self) -> None:
        """Do nothing."""

    def receive(self) -> None:
        """Read what has arrived."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except OSError as error:
            self._lose(error)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._lose(None)

    def _send(self, data: bytes) -> None:
        if self._closed:
            return
        try:
            self._socket.sendall(data)
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError | None) -> None:
        if not self._closed:
            self._closed = True
            self._turns.forget(self._socket)
            self._socket.close()
            self._protocol.connection_lost(error)


class Turns:
    """The sockets of one process; ``is_quiet``: it waits for the platform, or has ended.

    ``give_up`` ends a process whose turn has no end.
    """

    def __init__(self, is_quiet: Callable[[], bool], give_up: Callable[[], None]) -> None:
        self._is_quiet = is_quiet
        self._give_up = give_up
        self._poll = select.poll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._arrived: list[tuple[Key, Callable[[], None]]] = []
        self._said: deque[Callable[[], None]] = deque()
        self._due = self._taking = False
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StoppingLoop)
        self._listeners = loop.listeners
        self._listeners.append(self.listen_late)

    def close(self) -> None:
        """Listen no more; workerd has no further turn."""
        self._listeners.remove(self.listen_late)
        while self._said:
            self._said.popleft()()

    def listen_late(self) -> bool:
        """Take what an isolate says after it seemed to wait; return True if there was any.

        workerd has work that no timer of the isolate waits for, such as reading a stream.
        """
        if not self._poll.poll(0):
            return False
        self.take(at_least=1)
        return True

    def connect(self, path: str, protocols: Protocols) -> Any:
        """Open a connection; OSError if nothing listens there."""
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        return self._attach(sock, protocols())

    def listen(self, path: str, protocols: Protocols, backlog: int) -> socket.socket:
        """Accept connections from now on."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(backlog)
        self._watch(listener, lambda: self._attach(listener.accept()[0], protocols()))
        return listener

    def forget(self, sock: socket.socket) -> None:
        """Read this socket no more."""
        if self._readers.pop(sock.fileno(), None) is not None:
            self._poll.unregister(sock)

    def hand_on(self, key: Key, deliver: Callable[[], None]) -> None:
        """Call ``deliver`` at the end of the turn."""
        self._arrived.append((key, deliver))

    def say(self, act: Callable[[], None]) -> None:
        """Call ``act``, a part of a message to workerd, in its next turn.

        ``act`` is called at once within a turn: it replies to what the isolate itself reports.
        """
        if self._taking:
            act()
            return
        self._said.append(act)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self.take)

    def take(self, at_least: int = 0) -> None:
        """Give workerd its turn, of ``at_least`` so many looks at its sockets."""
        self._due = False
        self._taking = True
        self._listen(at_least)
        while self._said:
            self._said.popleft()()
            self._listen()
        self._taking = False
        arrived, self._arrived = self._arrived, []
        for _, deliver in sorted(arrived, key=lambda each: each[0]):
            deliver()

    def _listen(self, at_least: int = 0) -> None:
        """Read what workerd says until it waits."""
        deadline = time.monotonic() + TURN_SECONDS
        while at_least > 0 or not self._is_quiet():
            at_least -= 1
            for descriptor, _ in self._poll.poll(_LOOK_MS):
                reader = self._readers.get(descriptor)
                if reader is not None:
                    reader()
            if time.monotonic() > deadline:
                self._give_up()
                deadline += TURN_SECONDS

    def _attach(self, sock: socket.socket, protocol: WorkerdConnection) -> WorkerdConnection:
        transport = _SteppedTransport(sock, protocol, self)
        self._watch(sock, transport.receive)
        protocol.connection_made(cast("asyncio.BaseTransport", transport))
        return protocol

    def _watch(self, sock: socket.socket, reader: Callable[[], Any]) -> None:
        self._readers[sock.fileno()] = reader
        self._poll.register(sock, select.POLLIN)

"""Rehearsals: what an invocation will do is done before there is one, by code of our own.

A process pays for each page of memory that it is the first to write to, and Python writes as it
runs: modules that are imported at their first use, bytecode that specialises itself, caches.  Done
in the zygote, that is done once for all forks: 610 page faults an invocation became 330.  The rest
are counts of references, and every fork has its own: one that stands by does them while it waits.
Nothing of the Worker's takes part, and nothing is left that it could see.
"""

from __future__ import annotations

import asyncio
import mimetypes
import select
import socket
import sys

from edgesim.isolates.guest import clock_and_random, jailed_loop, serve
from edgesim.isolates.protocol.wire import DEFAULT, Invoke, one
from workers import Request, Response, WorkerEntrypoint

ROUNDS = 16
IDLE_MS = 3
"""A fork that nobody wants for so long is one of a machine with time to spare."""
_EVENT = {
    "method": "POST",
    "url": "http://rehearsal/",
    "headers": [("content-type", "application/json"), ("user-agent", "rehearsal")],
    "body": b'{"event": "rehearsal", "n": [1, 2.5, null]}',
    "cf": {},
}


_BEGIN = bytes(one(Invoke("fetch", _EVENT, 1.0), 1))


class _Rehearsal(WorkerEntrypoint):
    async def fetch(self, request: Request) -> Response:
        found = await request.json()
        print("rehearsal", found, request.headers["user-agent"])  # noqa: T201 (as worker code does)
        return Response("OK", headers={"content-type": "text/plain"})


_ENTRYPOINTS: serve.Entrypoints = {DEFAULT: _Rehearsal}


def rehearsed_loop() -> jailed_loop.TurnLoop:
    """The event loop of every fork, used but idle; the process's console is worker code's now."""
    sys.stdout = serve.ConsoleStream("log", sys.stderr)
    sys.stderr = serve.ConsoleStream("error", sys.stderr)
    clock_and_random.install()
    mimetypes.init([])  # no files of types: the platform has none, and this machine's are shut
    loop = jailed_loop.TurnLoop()
    asyncio.set_event_loop(loop)
    for _ in range(ROUNDS):
        jailed_loop.run_once(loop, _Stage(), _ENTRYPOINTS, None)
    return loop


def rehearse_while_idle(loop: jailed_loop.TurnLoop, sock: socket.socket) -> None:
    """Once more, unless the platform has something for this fork already."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if not poll.poll(IDLE_MS):
        jailed_loop.run_once(loop, _Stage(), _ENTRYPOINTS, None)


class _Stage:
    """Stands where a fork has its socket: says Invoke, and takes what it is told."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        return _BEGIN

    def sendall(self, data: bytes | bytearray) -> None:
        pass

"""Warm-up: runs rehearsal invocations of edgesim's own handler before the first real one.

A page fault occurs whenever a fork first writes to a memory page, and Python writes while it runs:
it imports modules at their first use, specialises bytecode and fills caches.  In the zygote this
happens once for all forks, which reduced the page faults of an invocation from 610 to 330.  The
rest come from reference counts, which every fork writes for itself; a standby fork does so while it
waits.  No worker code takes part, and no visible state remains.
"""

from __future__ import annotations

import asyncio
import mimetypes
import select
import socket
import sys

from edgesim.isolates.guest import clock_and_random, file_functions, jailed_loop, serve
from edgesim.isolates.guest.entrypoints import Entrypoints
from edgesim.isolates.protocol.wire import DEFAULT, Invoke, one
from workers import Request, Response, WorkerEntrypoint

ROUNDS = 16
IDLE_MS = 3
"""A fork that stays unused for this time rehearses: the machine has CPU time to spare."""
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


_ENTRYPOINTS: Entrypoints = {DEFAULT: _Rehearsal}


def rehearsed_loop(folders: list[str]) -> jailed_loop.TurnLoop:
    """Return the event loop for all forks after its rehearsals.

    ``folders`` contain modules; they stay visible to worker code below ``/tmp`` too.

    From now on the process's stdout and stderr are the console of worker code.
    """
    sys.stdout = serve.ConsoleStream("log", sys.stderr)
    sys.stderr = serve.ConsoleStream("error", sys.stderr)
    clock_and_random.install()
    file_functions.install(folders)
    mimetypes.init([])  # no files of types: the platform has none, and the guard refuses these
    loop = jailed_loop.TurnLoop()
    asyncio.set_event_loop(loop)
    for _ in range(ROUNDS):
        jailed_loop.run_once(loop, _RehearsalSocket(), _ENTRYPOINTS, None)
    return loop


def rehearse_while_idle(loop: jailed_loop.TurnLoop, sock: socket.socket) -> None:
    """Rehearse once more, unless a message for this fork arrives first."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if not poll.poll(IDLE_MS):
        jailed_loop.run_once(loop, _RehearsalSocket(), _ENTRYPOINTS, None)


class _RehearsalSocket:
    """Socket of a rehearsal: returns an Invoke, discards the isolate's frames."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        return _BEGIN

    def sendall(self, data: bytes | bytearray) -> None:
        pass

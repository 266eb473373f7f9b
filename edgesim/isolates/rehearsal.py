"""A zygote's rehearsal: what every fork will do is done a few times before there is one.

A fork pays for each page of memory that it is the first to write to, and Python writes as it runs:
modules that are imported at their first use, bytecode that specialises itself, caches.  Done here,
that is done once for all forks: 610 page faults an invocation became 330, a fresh loop included.
Nothing of the Worker's takes part.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from edgesim.isolates import inside, senses, turns
from edgesim.isolates.wire import Invoke, one
from workers import Request, Response, WorkerEntrypoint

ROUNDS = 16
_EVENT = {
    "method": "POST",
    "url": "http://rehearsal/",
    "headers": [("content-type", "application/json"), ("user-agent", "rehearsal")],
    "body": b'{"event": "rehearsal", "n": [1, 2.5, null]}',
    "cf": {},
}


class _Rehearsal(WorkerEntrypoint):
    async def fetch(self, request: Request) -> Response:
        found = await request.json()
        print("rehearsal", found, request.headers["user-agent"])  # noqa: T201 (as worker code does)
        return Response("OK", headers={"content-type": "text/plain"})


def rehearsed_loop() -> turns.TurnLoop:
    """The event loop of every fork, used but idle; the process's console is worker code's now."""
    sys.stdout = inside.ConsoleStream("log", sys.stderr)
    sys.stderr = inside.ConsoleStream("error", sys.stderr)
    senses.install()
    loop = turns.TurnLoop()
    asyncio.set_event_loop(loop)
    begin = bytes(one(Invoke("fetch", _EVENT, 1.0), 1))
    for _ in range(ROUNDS):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(begin)
            turns.run_once(loop, theirs, _Rehearsal, None, None)
    return loop

"""What the runtime needs of a place to run worker code, and the places there are."""

from __future__ import annotations

from typing import Any, Protocol

import anyio

from edgesim.clock import Clock
from edgesim.errors import PlatformError
from edgesim.isolates.wire import Call, Done, Failure, Invoke, Log, Reply, Respond

DRIVERS = {
    "process": "edgesim.isolates.process:open_isolates",
    "warm": "edgesim.isolates.warm:open_isolates",
    "inline": "edgesim.isolates.inline:open_isolates",
}


class Host(Protocol):
    """The platform's side of one invocation: what an isolate may say and ask."""

    depth: int
    """How many Workers it has come through."""

    async def call(self, call: Call) -> Any:
        """Answer a Call; PlatformError for what the Worker is to see."""

    def log(self, log: Log) -> None:
        """Take a console call."""

    def respond(self, response: Respond) -> None:
        """Take the fetch handler's response."""


class Isolates(Protocol):
    """The isolates of one Worker in one version.

    A module exports ``open_isolates(spec, clock)``, an async context manager that yields this and
    raises WorkerLoadError, one line, where the worker module does not load.  When it is left,
    invocations in flight are finished first.
    """

    handlers: frozenset[str]
    """Which of fetch, queue, tail and scheduled the Worker has."""

    entrypoints: frozenset[str]
    """Names of the classes that service bindings may name."""

    guards: list[str]
    """The parts of the jail that are in force, none at the inline level."""

    zygote: int | None
    """The process that isolates are forked from, None where there is none."""

    lost: anyio.Event
    """Set when no further invocation can run here, and others must be opened in their place."""

    async def invoke(self, invoke: Invoke, host: Host) -> Done:
        """Run one invocation to its end, waitUntil work included.

        Never raises for what worker code does: an isolate that dies is a Done with an outcome.
        Cancelling it ends the isolate.
        """


async def answer(call: Call, host: Host, clock: Clock) -> Reply:
    """The Reply to a Call: the host's value, or what it refused with."""
    try:
        value = await host.call(call)
        return Reply(call.id, clock.now(), value, steady=clock.steady())
    except PlatformError as error:
        failure = Failure(error.name, error.message)
        return Reply(call.id, clock.now(), error=failure, steady=clock.steady())

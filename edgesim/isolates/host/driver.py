"""Interface between the runtime and the isolation levels, and the list of levels."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import anyio

from edgesim.clock import Clock
from edgesim.errors import PlatformError
from edgesim.isolates.protocol.wire import Call, Done, Failure, Invoke, Log, Reply, Respond
from edgesim.model import WorkerSpec

DRIVERS = {
    "process": "edgesim.isolates.host.process:open_isolates",
    "warm": "edgesim.isolates.host.warm:open_isolates",
    "inline": "edgesim.isolates.host.inline:open_isolates",
}
JAVASCRIPT_DRIVERS = {
    "process": "edgesim.isolates.javascript.driver:open_fresh",
    "warm": "edgesim.isolates.javascript.driver:open_shared",
    "inline": "edgesim.isolates.javascript.driver:open_shared",
}
"""The same levels for JavaScript Workers; none can run in the platform's own process."""


def drivers_for(spec: WorkerSpec) -> Mapping[str, str]:
    """The drivers of a Worker, by level."""
    return DRIVERS if spec.javascript is None else JAVASCRIPT_DRIVERS


Drained = Callable[[], Awaitable[None]]


class Host(Protocol):
    """The platform's side of one invocation: receives the frames of its isolate."""

    depth: int
    """Number of Workers that the request passed through before this one."""

    async def call(self, call: Call) -> Any:
        """Run a Call and return its result; PlatformError is raised in the Worker."""

    def log(self, log: Log) -> None:
        """Receive a console call."""

    def respond(self, response: Respond) -> None:
        """Receive the fetch handler's response."""

    def spent(self, cpu_ms: float) -> None:
        """Receive the CPU time of an invocation that is cancelled, which has no Done to hold it."""

    def paced_by(self, drained: Drained) -> None:
        """Receive a function that waits until the isolate has read most of its replies."""
        return


class Isolates(Protocol):
    """The isolates of one version of one Worker.

    A driver module exports ``open_isolates(spec, clock)``, an async context manager that yields
    this.  It raises WorkerLoadError (one line) if the worker module does not load; on exit it
    finishes the invocations in flight first.
    """

    handlers: frozenset[str]
    """The Worker's handlers, of fetch, queue, tail and scheduled."""

    entrypoints: frozenset[str]
    """Names of the classes that service bindings may name."""

    guards: list[str]
    """Active parts of the jail; empty at the inline level."""

    zygote: int | None
    """Process id of the zygote, from which isolates are forked; None at the inline level."""

    lost: anyio.Event
    """Set when no further invocation can run here and the isolates must be replaced."""

    async def invoke(self, invoke: Invoke, host: Host) -> Done:
        """Run one invocation to its end, waitUntil work included.

        Never raises because of worker code: if the isolate crashes, the Done has its outcome.
        Cancelling this call ends the invocation; the host then receives its CPU time.
        """

    def inspector_port(self) -> int | None:
        """Return the port on loopback at which a debugger is served; None if there is none."""
        return None


class WrappedIsolates(Isolates):
    """Isolates that pass invocations on to ``inner``; the base of wrappers."""

    def __init__(self, inner: Isolates) -> None:
        self.handlers = inner.handlers
        self.entrypoints = inner.entrypoints
        self.guards = inner.guards
        self.zygote = inner.zygote
        self.lost = inner.lost
        self._inner = inner

    async def invoke(self, invoke: Invoke, host: Host) -> Done:
        """See Isolates."""
        return await self._inner.invoke(invoke, host)

    def inspector_port(self) -> int | None:
        """See Isolates."""
        return self._inner.inspector_port()


async def answer(call: Call, host: Host, clock: Clock) -> Reply:
    """Return the Reply to a Call: the host's value, or its PlatformError as a Failure."""
    try:
        value = await host.call(call)
        return Reply(call.id, clock.now(), value, steady=clock.steady())
    except PlatformError as error:
        failure = Failure(error.name, error.message)
        return Reply(call.id, clock.now(), error=failure, steady=clock.steady())

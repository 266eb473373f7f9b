"""Restarts a Worker's zygote when it exits.

Invocations that arrive meanwhile wait for the new zygote.  Invocations whose isolates exited are
run again if nothing of theirs had left the isolate.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from edgesim.backoff import Backoff
from edgesim.clock import Clock
from edgesim.errors import EdgesimError
from edgesim.isolates.host.driver import Host, Isolates
from edgesim.isolates.protocol.wire import NOT_RUN, Done, Failure, Invoke
from edgesim.model import WorkerSpec

RESTART_SECONDS = (0.2, 10.0)
"""First and longest pause of the backoff between restarts."""
LASTING_SECONDS = 10.0
"""Lifetime of a zygote after which the backoff is reset."""
WAIT_SECONDS = 10.0
"""Maximum time that an invocation waits for a restart."""

OpenIsolates = Callable[[WorkerSpec, Clock], AbstractAsyncContextManager[Isolates]]

log = structlog.get_logger()


class RestartingIsolates(Isolates):
    """Isolates that are opened again whenever they are lost; created by ``open_restarting``."""

    def __init__(self, open_isolates: OpenIsolates, spec: WorkerSpec, clock: Clock) -> None:
        self.lost = anyio.Event()  # never set
        self._open_isolates = open_isolates
        self._spec = spec
        self._clock = clock
        self._current: Isolates
        self._replaced = anyio.Event()
        self._closing = anyio.Event()

    async def invoke(self, invoke: Invoke, host: Host) -> Done:
        """See Isolates; the fault is NOT_RUN if no zygote could be started in time."""
        deadline = inf
        while True:
            current, replaced = self._current, self._replaced
            if not current.lost.is_set():
                done = await current.invoke(invoke, host)
                if done.fault != NOT_RUN or not current.lost.is_set():
                    return done
            if deadline == inf:
                deadline = anyio.current_time() + WAIT_SECONDS
            with anyio.CancelScope(deadline=deadline):
                await replaced.wait()
            if self._current is current:
                reason = f"No isolate for Worker {self._spec.name}: its zygote is not running."
                return Done("internalError", [Failure("Error", reason)], fault=NOT_RUN)

    def inspector_port(self) -> int | None:
        """See Isolates."""
        return self._current.inspector_port()

    async def keep(self, tasks: TaskGroup) -> None:
        """Open new isolates whenever the current ones are lost; runs until cancelled."""
        backoff = Backoff(*RESTART_SECONDS)
        while True:
            started = anyio.current_time()
            await self._current.lost.wait()
            if anyio.current_time() - started > LASTING_SECONDS:
                backoff.reset()
            failures = 0
            while self._current.lost.is_set():
                await anyio.sleep(backoff.pause)
                backoff.failed()  # reset only if the next isolates last
                try:
                    await tasks.start(self.generation)
                except Exception as error:
                    cause = _cause(error)
                    if cause is None:
                        raise
                    failures += 1
                    if failures == 1:
                        log.error("worker not restarted", worker=self._spec.name, error=str(cause))
            log.info("worker restarted", worker=self._spec.name, failed_restarts=failures)

    async def generation(self, *, task_status: TaskStatus[None]) -> None:
        """Run one zygote and its isolates until they are lost, or until ``close``."""
        async with self._open_isolates(self._spec, self._clock) as isolates:
            self.handlers, self.guards = isolates.handlers, isolates.guards
            self.entrypoints = isolates.entrypoints
            self.zygote = isolates.zygote
            self._current = isolates
            replaced, self._replaced = self._replaced, anyio.Event()
            replaced.set()
            task_status.started()
            async with anyio.create_task_group() as waiting:
                for event in (isolates.lost, self._closing):
                    waiting.start_soon(_cancel_when, event, waiting.cancel_scope)

    def close(self) -> None:
        """Close the isolates; invocations in flight finish first."""
        self._closing.set()


@asynccontextmanager
async def open_restarting(
    open_isolates: OpenIsolates, spec: WorkerSpec, clock: Clock
) -> AsyncIterator[Isolates]:
    """Open the Worker's isolates, with restarts.  Errors of the first start are raised here."""
    isolates = RestartingIsolates(open_isolates, spec, clock)
    async with anyio.create_task_group() as generations:
        await generations.start(isolates.generation)
        async with anyio.create_task_group() as keeping:
            keeping.start_soon(isolates.keep, generations)
            try:
                yield isolates
            finally:
                keeping.cancel_scope.cancel()
        isolates.close()


async def _cancel_when(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _cause(error: BaseException) -> EdgesimError | OSError | None:
    """Return the cause of a failed start if a retry may succeed; None for a bug in edgesim."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, EdgesimError | OSError) else None

"""The isolates of a Worker across deaths of its zygote: the next zygote is started at once.

Invocations that come meanwhile wait for it, and those of which nothing has left the dead isolates
are run again in the new ones.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

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
"""The first and the longest pause before a restart, where the last one did not last."""
LASTING_SECONDS = 10.0
"""A zygote that lived for so long is replaced without a pause."""
WAIT_SECONDS = 10.0
"""Seconds that an invocation waits for a restart."""

OpenIsolates = Callable[[WorkerSpec, Clock], AbstractAsyncContextManager[Isolates]]

log = structlog.get_logger()


class RestartingIsolates(Isolates):
    """Isolates that are opened again whenever they are lost.  Made by ``open_restarting``."""

    def __init__(self, open_isolates: OpenIsolates, spec: WorkerSpec, clock: Clock) -> None:
        self.lost = anyio.Event()  # never set
        self._open_isolates = open_isolates
        self._spec = spec
        self._clock = clock
        self._current: Isolates
        self._replaced = anyio.Event()
        self._closing = anyio.Event()

    async def invoke(self, invoke: Invoke, host: Host) -> Done:
        """See Isolates; NOT_RUN where no zygote could be started in time."""
        deadline = anyio.current_time() + WAIT_SECONDS
        while True:
            current, replaced = self._current, self._replaced
            if not current.lost.is_set():
                done = await current.invoke(invoke, host)
                if done.fault != NOT_RUN or not current.lost.is_set():
                    return done
            with anyio.CancelScope(deadline=deadline):
                await replaced.wait()
            if self._current is current:
                reason = f"No isolate for Worker {self._spec.name}: its zygote is not running."
                return Done("internalError", [Failure("Error", reason)], fault=NOT_RUN)

    async def keep(self, tasks: TaskGroup) -> None:
        """Start the next isolates whenever these are lost."""
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
        """One zygote and its isolates, until they are lost or nobody wants them any more."""
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
        """Let the isolates go; invocations in flight are finished first."""
        self._closing.set()


@asynccontextmanager
async def open_restarting(
    open_isolates: OpenIsolates, spec: WorkerSpec, clock: Clock
) -> AsyncIterator[Isolates]:
    """The Worker's isolates.  What the first start raises is raised here."""
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
    """Why a start failed, where that may pass; None for a fault of ours."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, EdgesimError | OSError) else None

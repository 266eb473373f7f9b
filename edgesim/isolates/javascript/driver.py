"""The isolates of a JavaScript Worker: a workerd process, and another when that one ends.

The process serves until an invocation breaks a limit in it, or it dies.  Invocations of which
nothing has left it are run again in another one; each of those alone if it cannot be known which of
them was the cause, which then repeats itself.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from edgesim.clock import Clock
from edgesim.errors import EdgesimError, UsageError, WorkerLoadError, first_error
from edgesim.foreign import stops_the_world
from edgesim.isolates.host.driver import Host, Isolates
from edgesim.isolates.javascript import watch
from edgesim.isolates.javascript.bundle import build, build_guest
from edgesim.isolates.javascript.invocation import WorkerdInvocation, lost
from edgesim.isolates.javascript.process import EndedError, WorkerdProcess, WorkerdProgram
from edgesim.isolates.javascript.settings import WorkerdSettings
from edgesim.isolates.javascript.source_map import SourceMap
from edgesim.isolates.javascript.start import open_process
from edgesim.isolates.javascript.tools import find_program, newest_date
from edgesim.isolates.protocol.limits import KERNEL_GUARDS
from edgesim.isolates.protocol.wire import Done, Invoke
from edgesim.jail import landlock, seccomp
from edgesim.model import WorkerSpec
from edgesim.scratch import scratch_folder

DETERMINISTIC = True  # workerd takes turns where time is virtual
TRIES_MAX = 4
"""Maximum runs of one invocation whose process ended."""
ISOLATES_MAX = 32
"""Fresh isolates of one Worker at a time; further invocations wait their turn.

For each depth of calls, since a Worker that calls itself would otherwise wait for itself.
"""
SUSPECTS_MAX = 2
"""Processes at a time for invocations that run alone."""
DRAIN_SECONDS = 30.0
"""Seconds that invocations in flight may run after their Worker closes."""

log = structlog.get_logger()


class JavaScriptIsolates(Isolates):
    """One workerd process at a time, and short-lived ones for suspects."""

    def __init__(
        self,
        spec: WorkerSpec,
        program: WorkerdProgram,
        tasks: TaskGroup,
        requests: asyncio.TaskGroup,
        clock: Clock,
    ) -> None:
        self.lost = anyio.Event()
        self.zygote = None
        self.guards = guards()
        self._spec = spec
        self._program = program
        self._tasks = tasks
        self._requests = requests
        self._clock = clock
        self._processes = 0
        self._current: WorkerdProcess | None = None
        self._starting = anyio.Lock()
        self._suspects = anyio.Semaphore(SUSPECTS_MAX)
        self._slots: dict[int, anyio.CapacityLimiter] = defaultdict(
            lambda: anyio.CapacityLimiter(ISOLATES_MAX)
        )
        self._in_flight = 0
        self._settled = anyio.Event()

    async def start(self) -> None:
        """Start the first process; WorkerLoadError if the Worker does not load."""
        booted = (await self._serving()).booted
        self.handlers = frozenset(booted.handlers or ())
        self.entrypoints = frozenset(booted.entrypoints)

    async def invoke(self, invoke: Invoke, host: Host) -> Done:
        """See Isolates."""
        if not self._program.fresh:
            return await self._admitted(invoke, host)
        async with self._slots[host.depth]:
            return await self._admitted(invoke, host)

    async def _admitted(self, invoke: Invoke, host: Host) -> Done:
        number = self._clock.random.getrandbits(62) + 1  # not to be guessed by a neighbour
        run = WorkerdInvocation(self._spec.name, number, invoke, host, self._clock)
        self._in_flight += 1
        try:
            return run.settled(await self._invoke(run))
        except EdgesimError as error:  # of a start
            log.error("workerd not started", worker=self._spec.name, error=str(error))
            self.lost.set()
            return run.settled(lost(str(error)))
        finally:
            self._in_flight -= 1
            self._settled.set()

    async def _invoke(self, run: WorkerdInvocation) -> Done:
        alone = False
        done = lost("")
        for _ in range(TRIES_MAX):
            try:
                if alone:
                    return await self._run_alone(run)
                return await (await self._serving()).run(run)
            except EndedError as error:
                done, alone = error.done, error.alone
                if run.has_left or not done.blameless:
                    return done
        return done

    async def _run_alone(self, run: WorkerdInvocation) -> Done:
        async with self._suspects:
            process = await self._start()
            process.retired = True  # it is for this one alone
            return await process.run(run)

    def inspector_port(self) -> int | None:
        """See Isolates."""
        return None if self._current is None else self._current.inspector_port

    # --- processes ---

    async def _serving(self) -> WorkerdProcess:
        """The process for new invocations; WorkerLoadError if it cannot be started."""
        async with self._starting:
            if self._current is None or self._current.retired:
                self._current = await self._start()
            return self._current

    async def _start(self) -> WorkerdProcess:
        self._processes += 1
        try:
            process: WorkerdProcess = await self._tasks.start(self._keep, self._processes)
        except BaseExceptionGroup as group:
            error = first_error(group)
            if error is None:
                raise
            raise error from group
        return process

    async def _keep(self, number: int, *, task_status: TaskStatus[WorkerdProcess]) -> None:
        """One process, until it has ended or is retired and idle."""
        async with open_process(self._program, number, self._requests) as process:
            task_status.started(process)
            async with anyio.create_task_group() as watching:
                watching.start_soon(watch.watch, process, self._spec.limits)
                await process.finished()
                watching.cancel_scope.cancel()

    async def drain(self) -> None:
        """Wait until no invocation is in flight."""
        while self._in_flight:
            self._settled = anyio.Event()
            await self._settled.wait()


def guards() -> list[str]:
    """The parts of the jail that this kernel has."""
    present = (landlock.version() > 0, seccomp.available())
    return [name for name, is_here in zip(KERNEL_GUARDS, present, strict=True) if is_here]


def open_fresh(spec: WorkerSpec, clock: Clock) -> AbstractAsyncContextManager[JavaScriptIsolates]:
    """Open the level ``process``: an isolate of its own for each invocation."""
    return _open(spec, clock, fresh=True)


def open_shared(spec: WorkerSpec, clock: Clock) -> AbstractAsyncContextManager[JavaScriptIsolates]:
    """Open the level ``warm``: one isolate for all invocations, as in production."""
    return _open(spec, clock, fresh=False)


@asynccontextmanager
async def _open(
    spec: WorkerSpec, clock: Clock, *, fresh: bool
) -> AsyncIterator[JavaScriptIsolates]:
    """Bundle the Worker and start workerd."""
    problem: EdgesimError | None = None
    with scratch_folder("js") as folder:
        program = await _prepare(spec, folder, fresh=fresh)
        async with anyio.create_task_group() as tasks, asyncio.TaskGroup() as requests:
            isolates = JavaScriptIsolates(spec, program, tasks, requests, clock)
            try:
                await isolates.start()
            except EdgesimError as error:
                problem = error
            else:
                try:
                    yield isolates
                finally:
                    with anyio.CancelScope(shield=True), anyio.move_on_after(DRAIN_SECONDS):
                        await isolates.drain()
                    tasks.cancel_scope.cancel()
    if problem is not None:  # outside the task groups, which would wrap it
        raise problem


async def _prepare(spec: WorkerSpec, folder: Path, *, fresh: bool) -> WorkerdProgram:
    """Build what workerd is started with; WorkerLoadError if it cannot be built."""
    javascript = spec.javascript
    assert javascript is not None
    place = Path(javascript.folder)
    try:
        workerd = find_program("workerd", javascript.workerd, place)
        esbuild = find_program("esbuild", javascript.esbuild, place)
        guest = await build_guest(esbuild, folder)
        bundle = await build(spec, javascript, esbuild, folder)
        date = javascript.compatibility_date or await newest_date(workerd, folder)
    except UsageError as error:
        raise WorkerLoadError(f"worker {spec.name}: {error}") from error
    settings = WorkerdSettings(
        guest,
        bundle.modules,
        spec.bindings,
        date,
        javascript.compatibility_flags,
        spec.limits.memory_bytes,
        fresh,
        stops_the_world(),
    )
    sources = SourceMap(bundle.source_map, javascript.folder)
    file = settings.write(folder)
    return WorkerdProgram(
        spec.name, workerd, file, folder, sources, spec.limits, fresh, javascript.inspected
    )

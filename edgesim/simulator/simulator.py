"""A running project: configuration -> drivers -> primitives -> Workers -> one tree of tasks.

A Simulator runs on opened backends.  It can be closed and another one opened on them (a reload of
the configuration) without losing their contents, even those in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup

from edgesim.backends import Backends
from edgesim.clock import Clock
from edgesim.config import Project
from edgesim.errors import RunError, first_error
from edgesim.isolates.host.restarting import OpenIsolates
from edgesim.isolates.protocol.wire import NOT_RUN, Done
from edgesim.model import (
    BatchResult,
    HttpRequest,
    HttpResponse,
    Message,
    ScheduledResult,
    TraceItem,
)
from edgesim.pipelines.iceberg.validation import check_columns
from edgesim.pipelines.sql.validation import result_columns
from edgesim.queues.driver import Depth
from edgesim.queues.producer import Metrics
from edgesim.runtime import delivery
from edgesim.runtime.failure import NoResponseError
from edgesim.runtime.finished import InvocationSink
from edgesim.runtime.ingest import HttpIngest
from edgesim.runtime.invocation import Fetch
from edgesim.runtime.outbound import Outbound, open_outbound
from edgesim.runtime.reach import Reach
from edgesim.runtime.request_cf import request_cf
from edgesim.runtime.routing import Router
from edgesim.runtime.schedule import Schedule
from edgesim.simulator import stats
from edgesim.simulator.draining import Drain
from edgesim.simulator.primitives import Primitives
from edgesim.simulator.stats import Usage
from edgesim.simulator.workers import Workers, isolates_of
from edgesim.taps import Taps
from edgesim.tracing import Tracer, TraceSources

SCHEDULED_SECONDS, SCHEDULED_PAUSE_SECONDS = 60.0, 2.0
"""Retry time and retry interval of a scheduled handler that the platform could not run."""

IN_FLIGHT_MAX = 4096
"""Invocations of all Workers, waitUntil work included, above which new requests wait.

Only those of Workers that have more than an even share of it; so there are at most twice as many.
"""
HOLD_SECONDS = 30.0
"""Maximum time that a queue batch waits for room in the tails before its delivery."""
LOOK_SECONDS = 0.005

log = structlog.get_logger()


class Simulator:
    """A project's primitives and Workers, and the tasks between them; see ``open_simulator``."""

    def __init__(
        self,
        project: Project,
        backends: Backends,
        clock: Clock,
        tasks: TaskGroup,
        invocations: asyncio.TaskGroup,
        open_isolates: OpenIsolates | None = None,
        sink: InvocationSink | None = None,
        taps: Taps | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.project = project
        self.primitives = Primitives(project, backends, clock, self._deliver_batch, taps, tracer)
        self.opened_at = clock.elapsed()
        """Steady time of the start, in seconds."""
        self.requests = 0
        self.rejected = 0
        self.router = Router(project.workers.values())
        self.ingest = HttpIngest(
            self.primitives.streams, project.dataflow.ids(), project.ingest_token, tracer
        )
        self.cf = request_cf(project.account.cf)
        self.workers = Workers(
            self.primitives, tasks, invocations, open_isolates or isolates_of(project), sink
        )
        self._tailed_by = {
            name: [
                worker.name
                for worker in project.workers.values()
                if any(tail.target == name for tail in worker.settings.tail_consumers)
            ]
            for name in self.primitives.tails
        }
        self._tails_behind = {name: project.tails_behind(name) for name in project.workers}
        self.draining = Drain(self.primitives, self.workers)
        self._abandoned = False

    async def fetch(
        self, request: HttpRequest, worker: str | None = None, *, explained: bool = False
    ) -> HttpResponse:
        """Send an external request to the entry Worker, or to the named one (KeyError).

        Without a name the URL may be that of a stream's endpoint.  ``explained``: the response to a
        handler's exception contains its traceback.
        """
        stream = None if worker else self.ingest.target_of(request.url)
        if stream is not None:
            return await self.ingest.respond(stream, request)
        if not request.cf:
            request = msgspec.structs.replace(request, cf=self.cf)
        try:
            response = await self.workers[worker or self.project.entry].respond(request)
        except NoResponseError as error:
            response = error.page(explained=explained)
        if worker in {None, self.project.entry}:
            self.requests += 1
            self.rejected += response.status >= 400
        return response

    async def scheduled(self, worker: str, cron: str, scheduled_ms: int | None = None) -> str:
        """Run a scheduled handler now, with that time or the current one; returns its outcome."""
        return (await self.scheduled_result(worker, cron, scheduled_ms)).outcome

    async def scheduled_result(
        self, worker: str, cron: str, scheduled_ms: int | None = None
    ) -> ScheduledResult:
        """Like ``scheduled``; the result also says whether the handler called noRetry."""
        time_ms = self.primitives.clock.now_ms() if scheduled_ms is None else scheduled_ms
        done = await self.workers[worker].scheduled(cron, time_ms)
        return ScheduledResult(done.outcome, done.result is True)

    # --- state ---

    @property
    def traces_pending(self) -> int:
        """Number of traces that are not yet processed by a tail handler."""
        return sum(tail.pending for tail in self.primitives.tails.values())

    @property
    def has_room(self) -> bool:
        """False while too much earlier work of any Worker is unfinished."""
        in_flight = self.workers.in_flight
        if in_flight >= IN_FLIGHT_MAX:
            return False
        for name, tail in self.primitives.tails.items():
            if not tail.has_room(in_flight) and not self._tail_has_room(name):
                return False
        return True

    def has_room_for(self, worker: str) -> bool:
        """False while new requests to that Worker should wait; True if there is no such Worker.

        It waits for the tails of Workers that it can call, and for its own invocations if it has
        more than an even share of all: one Worker's unfinished work must not stop the others.
        """
        if worker not in self.workers:
            return True
        share = IN_FLIGHT_MAX // len(self.workers)
        if self.workers.in_flight >= IN_FLIGHT_MAX and self.workers[worker].in_flight >= share:
            return False
        return all(map(self._tail_has_room, self._tails_behind[worker]))

    def _tail_has_room(self, name: str) -> bool:
        tailed = sum(self.workers[worker].in_flight for worker in self._tailed_by[name])
        return self.primitives.tails[name].has_room(tailed)

    async def stats(self) -> dict[str, Any]:
        """Counters by stage since this Simulator was opened, with the stores' current contents."""
        depths, usage = await stats.depths(self.primitives), await stats.usage(self.primitives)
        return self.counters(depths, usage)

    def counters(self, depths: Mapping[str, Depth], usage: Mapping[str, Usage]) -> dict[str, Any]:
        """Like ``stats``, with the contents of those queues and buckets only; queries no store."""
        receiver = {"requests": self.requests, "rejected": self.rejected}
        return {"receiver": receiver} | stats.counters(self.primitives, self.workers, depths, usage)

    # --- background tasks ---

    async def start(self, outbound: Outbound) -> None:
        """Validate the SQL, create tables and start every Worker; raises the first error."""
        await result_columns(self.project.dataflow, self.primitives.sql, self.primitives.clock)
        await check_columns(
            self.project.dataflow,
            self.primitives.sql,
            self.primitives.iceberg,
            self.primitives.clock,
        )
        await self.primitives.prepare_tables()
        await self.workers.start_all(outbound)

    async def run(self) -> None:
        """Run pipelines, notifications, tails, consumers and schedules until cancelled."""
        primitives = self.primitives
        relay = partial(primitives.notifications.relay, primitives.backends.r2, primitives.notify)
        async with anyio.create_task_group() as tasks:
            for buffer in primitives.buffers:
                tasks.start_soon(buffer.run)
            for name, tail in primitives.tails.items():
                tasks.start_soon(tail.run, partial(self._deliver_traces, name))
            for consumer in primitives.consumers:
                tasks.start_soon(consumer.run)
            for schedule in primitives.schedules:
                tasks.start_soon(schedule.run, partial(self._run_schedule, schedule))
            for lifecycle in primitives.lifecycles:
                tasks.start_soon(lifecycle.run)
            tasks.start_soon(primitives.retry_tables)
            tasks.start_soon(relay)
            tasks.start_soon(self._heed_other_nodes)

    async def _deliver_batch(
        self, worker: str, queue: str, messages: Sequence[Message], metrics: Metrics
    ) -> BatchResult:
        settings = self.project.workers[worker].settings
        tails = [self.primitives.tails[tail.target] for tail in settings.tail_consumers]
        with anyio.move_on_after(HOLD_SECONDS):
            while any(tail.is_full for tail in tails):  # noqa: ASYNC110 (no event exists)
                await anyio.sleep(LOOK_SECONDS)
        return await delivery.deliver(self.workers[worker], queue, messages, metrics)

    async def _deliver_traces(
        self, worker: str, items: Sequence[TraceItem], sources: TraceSources
    ) -> Done:
        return await self.workers[worker].tail(items, sources)

    async def _run_schedule(self, schedule: Schedule, time_ms: int) -> str | None:
        worker, cron = schedule.worker, schedule.expression
        try:
            mine = await self.primitives.backends.queues.claim(f"{worker} {cron} {time_ms}")
        except RunError as error:  # cannot claim the run: skip it rather than run it on every node
            log.error("scheduled handler not run", worker=worker, cron=cron, error=str(error))
            return None
        return await self._insist_on(worker, cron, time_ms) if mine else None

    async def _insist_on(self, worker: str, cron: str, time_ms: int) -> str:
        """Run a scheduled handler; retry for a minute if the platform could not start it."""
        given_up = anyio.current_time() + SCHEDULED_SECONDS
        while True:
            done = await self.workers[worker].scheduled(cron, time_ms)
            if done.fault != NOT_RUN or anyio.current_time() > given_up:
                return done.outcome
            await anyio.sleep(SCHEDULED_PAUSE_SECONDS)

    async def _heed_other_nodes(self) -> None:
        while True:
            name = await self.primitives.backends.queues.changed_elsewhere()
            if name in self.primitives.queues:
                self.primitives.queues[name].wake()

    # --- shutdown ---

    async def finish(self) -> None:
        """Wait for invocations and for the delivery of their traces, for a limited time."""
        if not self._abandoned:
            await self.draining.finish()

    def abandon(self) -> None:
        """Make the end of this Simulator skip ``finish``, like a killed process."""
        self._abandoned = True

    def close(self) -> None:
        """Close every Worker's isolates and the logs of pipelines and streams."""
        self.workers.retire()
        for buffer in self.primitives.buffers:
            buffer.close()


@asynccontextmanager
async def open_simulator(
    project: Project,
    backends: Backends,
    clock: Clock,
    *,
    open_isolates: OpenIsolates | None = None,
    network: Fetch | None = None,
    reach: Reach | None = None,
    sink: InvocationSink | None = None,
    taps: Taps | None = None,
    tracer: Tracer | None = None,
) -> AsyncIterator[Simulator]:
    """Run a Simulator; at the end it finishes the work that can be finished.

    ``open_isolates`` and ``network`` replace the project's isolation level and the internet;
    ``reach`` restricts the connections of Workers; ``sink`` receives every invocation; readers
    watch records at ``taps``; ``tracer`` is the source of spans, None without tracing.
    WorkerLoadError or ConfigError if a Worker does not load.
    """
    try:
        async with anyio.create_task_group() as tasks, asyncio.TaskGroup() as invocations:
            simulator = Simulator(
                project, backends, clock, tasks, invocations, open_isolates, sink, taps, tracer
            )
            fetch_of = simulator.workers.fetch_of
            async with open_outbound(
                simulator.router, fetch_of, network, reach, simulator.ingest
            ) as outbound:
                try:
                    await simulator.start(outbound)
                    async with anyio.create_task_group() as background:
                        background.start_soon(simulator.run)
                        try:
                            yield simulator
                        finally:
                            with anyio.CancelScope(shield=True):
                                await simulator.finish()
                            background.cancel_scope.cancel()
                finally:
                    simulator.close()
                    with anyio.CancelScope(shield=True):
                        await simulator.primitives.sql.close()
                        await simulator.primitives.iceberg.close()
    except BaseExceptionGroup as group:
        error = first_error(group)
        if error is None:
            raise
        raise error from group

"""A Worker: its isolates, its bindings, and one method for each kind of event.

Every event method starts one invocation.  ``fetch`` returns as soon as there is a response; the
invocation continues until its waitUntil work is done, then its trace goes to the Tail Workers.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import structlog

from edgesim.clock import Clock
from edgesim.config import WorkerConfig
from edgesim.errors import PlatformError
from edgesim.isolates.host.driver import Isolates
from edgesim.isolates.protocol.limits import EVENT_SECONDS, MEMORY_EXCEEDED, WALL_EXCEEDED
from edgesim.isolates.protocol.wire import DEFAULT, LOST, Done, Failure, Invoke
from edgesim.model import HttpRequest, HttpResponse, TraceItem, iterate
from edgesim.runtime.decisions import checked
from edgesim.runtime.failure import NoResponseError, no_response
from edgesim.runtime.finished import FinishedInvocation, InvocationSink
from edgesim.runtime.histogram import Histogram
from edgesim.runtime.invocation import SUBREQUESTS_MAX, Binding, Fetch, Invocation
from edgesim.runtime.lineage import Lineage, arrived, without_header
from edgesim.runtime.narration import narrate
from edgesim.runtime.spans import InvocationSpans, resources_of
from edgesim.runtime.tail import TraceSink
from edgesim.runtime.trace import Trace, delivered, fetch_event
from edgesim.tracing import TraceContext, Tracer, TraceSources, parsed

DEPTH_MAX = 16
"""Maximum Workers in a row that a request may pass through."""
DEPTH_EXCEEDED = "Subrequest depth limit exceeded (error code: 1019)"

log = structlog.get_logger()


class Worker:
    """One version of one Worker; ``outcomes``, ``cpu_ms`` and ``wall`` are its metrics."""

    def __init__(
        self,
        config: WorkerConfig,
        isolates: Isolates,
        bindings: Mapping[str, Binding],
        outbound: Fetch,
        tails: Sequence[TraceSink],
        sink: InvocationSink | None,
        tasks: asyncio.TaskGroup,
        clock: Clock,
        tracer: Tracer | None = None,
    ) -> None:
        self.name = config.name
        self.outcomes: Counter[str] = Counter()
        self.cpu_ms = 0.0
        self.wall: dict[str, Histogram] = defaultdict(Histogram)
        """Durations of invocations in seconds, including waitUntil work, by outcome."""
        self.in_flight = 0
        self._config = config
        self.version = config.version_id()
        self._isolates = isolates
        self._bindings = bindings
        self._outbound = outbound
        self._tails = tails
        self._sink = sink
        self._tasks = tasks
        self._clock = clock
        self._tracer = tracer
        self._resources = resources_of(config) if tracer is not None else {}
        self._log = log.bind(worker=self.name)

    async def fetch(self, request: HttpRequest, lineage: Lineage | None = None) -> HttpResponse:
        """Serve a request; if the Worker fails, return the platform's error page.

        ``lineage`` is None for a request from outside.  Raises PlatformError if a request sent by a
        Worker exceeds the invocation limit.
        """
        try:
            return await self.respond(request, lineage)
        except NoResponseError as error:
            return error.page()

    async def respond(
        self, request: HttpRequest, lineage: Lineage | None = None, entrypoint: str = DEFAULT
    ) -> HttpResponse:
        """Serve a request with a class of the Worker; NoResponseError if it returns no response."""
        self._check_entrypoint(entrypoint)
        came_through, remote = lineage, None
        if came_through is None:
            came_through = arrived(request)
            if self._tracer is not None and came_through.trace is None:
                remote = parsed(request.header("traceparent"), request.header("tracestate"))
        if came_through.depth > DEPTH_MAX:
            raise NoResponseError(500, 1019, DEPTH_EXCEEDED)
        try:
            came_through.count()
        except PlatformError as error:
            log.warning("too many Worker invocations for one request", worker=self.name)
            if lineage is None:
                raise NoResponseError(500, 1019, error.message) from error
            raise
        request = without_header(request)
        invocation = self._invocation(fetch_event(request), came_through, entrypoint, remote=remote)
        self._tasks.create_task(self._run(invocation, "fetch", request, entrypoint))
        try:
            await invocation.responded
        except asyncio.CancelledError:
            invocation.give_up()
            raise
        response = invocation.take_response()
        if response is None:
            raise no_response(invocation.outcome, invocation.failure)
        return response

    async def queue(
        self,
        queue: str,
        messages: list[dict[str, Any]],
        metadata: dict[str, Any],
        size: int = 0,
        sources: TraceSources | None = None,
    ) -> Done:
        """Run the queue handler over one batch; the Done holds its decisions.

        ``size`` is that of the messages' bodies in bytes, ``sources`` their trace contexts.
        """
        batch = {"queue": queue, "messages": messages, "metadata": metadata}
        return (await self._run_batch(batch, size, sources)).done

    async def _run_batch(
        self, batch: dict[str, Any], size: int, sources: TraceSources | None = None
    ) -> FinishedInvocation:
        event = {"queue": batch["queue"], "batchSize": len(batch["messages"])}
        return await self._run(self._invocation(event, sources=sources), "queue", batch, size=size)

    async def tail(self, items: Sequence[TraceItem], sources: TraceSources | None = None) -> Done:
        """Run the tail handler over some traces; ``sources`` are their invocations' contexts."""
        event = {"consumedEvents": [{"scriptName": item.script_name} for item in items]}
        invocation = self._invocation(event, sources=sources)
        return (await self._run(invocation, "tail", delivered(items))).done

    async def scheduled(
        self,
        cron: str,
        scheduled_ms: int,
        lineage: Lineage | None = None,
        entrypoint: str = DEFAULT,
    ) -> Done:
        """Run the scheduled handler; with a ``lineage`` on behalf of another Worker."""
        if lineage is not None:
            self._check_entrypoint(entrypoint)
            if lineage.depth > DEPTH_MAX:
                raise PlatformError(DEPTH_EXCEEDED)
            lineage.count()
        event = {"cron": cron, "scheduledTime": scheduled_ms}
        invocation = self._invocation(event, lineage, entrypoint)
        return (await self._run(invocation, "scheduled", event, entrypoint)).done

    async def rpc(
        self, method: str, args: list[Any], lineage: Lineage, entrypoint: str = DEFAULT
    ) -> Any:
        """Call a method of a class of the Worker; its exception is raised as PlatformError."""
        self._check_entrypoint(entrypoint)
        if lineage.depth > DEPTH_MAX:
            raise PlatformError(DEPTH_EXCEEDED)
        lineage.count()
        event = {"method": method, "args": args}
        invocation = self._invocation({"rpcMethod": method}, lineage, entrypoint)
        done = (await self._run(invocation, "rpc", event, entrypoint)).done
        if done.exceptions:
            failure = done.exceptions[0]
            raise PlatformError(failure.message.rpartition("\n")[2], failure.name)
        if done.outcome != "ok":
            raise PlatformError(f"The RPC receiver ended as {done.outcome}.")
        return done.result

    async def again(self, earlier: FinishedInvocation) -> FinishedInvocation:
        """Run the handler of an earlier invocation over its event once more."""
        entrypoint = earlier.entrypoint
        self._check_entrypoint(entrypoint)
        if earlier.handler == "queue":
            return await self._run_batch(earlier.event, earlier.size)
        if earlier.handler == "scheduled":
            invocation = self._invocation(earlier.event, None, entrypoint)
            return await self._run(invocation, "scheduled", earlier.event, entrypoint)
        request: HttpRequest = earlier.event
        invocation = self._invocation(fetch_event(request), _counted(), entrypoint)
        running = self._tasks.create_task(self._run(invocation, "fetch", request, entrypoint))
        try:
            await invocation.responded
            response = invocation.take_response()
            if response is not None:
                async for _ in iterate(response.body):
                    pass
            return await running
        except BaseException:
            invocation.give_up()
            raise

    def go_on_counting(self, previous: Worker) -> None:
        """Continue the metrics of the previous version, which this one replaces."""
        self.outcomes.update(previous.outcomes)
        self.cpu_ms = previous.cpu_ms
        self.wall.update(previous.wall)

    def has(self, handler: str) -> bool:
        """Return True if the Worker has that handler."""
        return handler in self._isolates.handlers

    @property
    def entrypoints(self) -> frozenset[str]:
        """Names of its classes that service bindings may name."""
        return self._isolates.entrypoints

    def inspector_port(self) -> int | None:
        """Return the port on loopback at which a debugger is served; None if there is none."""
        return self._isolates.inspector_port()

    def _check_entrypoint(self, name: str) -> None:
        """Raise PlatformError if this version of the Worker has no such class."""
        if name not in self.entrypoints:
            message = f'The Worker "{self.name}" has no entrypoint "{name}".'
            raise PlatformError(message, "TypeError")

    def _invocation(
        self,
        event: dict[str, Any],
        lineage: Lineage | None = None,
        entrypoint: str = DEFAULT,
        *,
        sources: TraceSources | None = None,
        remote: TraceContext | None = None,
    ) -> Invocation:
        self.in_flight += 1
        named = None if entrypoint == DEFAULT else entrypoint
        return Invocation(
            self.name,
            self._bindings,
            self._outbound,
            Trace(self.name, event, self._clock.now_ms(), entrypoint=named, version=self.version),
            self._clock,
            lineage=lineage or _counted(),
            spans=None if self._tracer is None else self._spans(lineage, sources, remote),
            subrequests_max=self._config.settings.limits.subrequests or SUBREQUESTS_MAX,
        )

    def _spans(
        self, lineage: Lineage | None, sources: TraceSources | None, remote: TraceContext | None
    ) -> InvocationSpans:
        """The place of a new invocation in the traces; ``remote`` is its client's context."""
        assert self._tracer is not None
        parent = remote if lineage is None or lineage.trace is None else lineage.trace
        begun = self._tracer.begin(self.name, parent, sources, remote=remote is not None)
        return InvocationSpans(
            self._tracer,
            self.name,
            begun,
            self._resources,
            is_recorded=self._config.settings.exported.traces > 0,
        )

    async def _run(
        self,
        invocation: Invocation,
        handler: str,
        event: Any,
        entrypoint: str = DEFAULT,
        size: int = 0,
    ) -> FinishedInvocation:
        started = self._clock.elapsed()
        try:
            done = await self._invoke(handler, event, invocation, entrypoint)
            if handler == "queue":
                done = checked(done)
            invocation.outcome = done.outcome
            invocation.failure = next(iter(done.exceptions), None)
            wall_ms = (self._clock.elapsed() - started) * 1000
            if handler == "fetch" and invocation.status is not None:
                invocation.trace.event["response"] = {"status": invocation.status}
            item = invocation.trace.finish(done, self._clock.now_ms(), wall_ms)
            self.outcomes[done.outcome] += 1
            self.cpu_ms += done.cpu_ms
            self.wall[done.outcome].observe(wall_ms / 1000)
            spans = invocation.spans
            for tail in self._tails:
                tail.add(item, None if spans is None else spans.context)
            finished = FinishedInvocation(
                handler,
                item,
                done,
                event,
                size,
                invocation.reply,
                invocation.depth,
                entrypoint,
                spans,
            )
            if self._sink is not None:
                self._sink.finished(finished)
        finally:
            await invocation.close()
            self.in_flight -= 1
        narrate(self._log, handler, event, done, item, self._config.main)
        return finished

    async def _invoke(
        self, handler: str, event: Any, invocation: Invocation, entrypoint: str
    ) -> Done:
        if invocation.given_up:
            return Done("canceled")
        invocation.task = asyncio.current_task()
        try:
            if isinstance(event, HttpRequest):
                wire = await _fetch_event(event, invocation)
                invoke = Invoke(handler, wire, self._clock.now(), entrypoint=entrypoint)
                # No wall-time limit while the client waits.
                return await self._isolates.invoke(invoke, invocation)
            with anyio.move_on_after(EVENT_SECONDS):
                invoke = Invoke(handler, event, self._clock.now(), entrypoint=entrypoint)
                return await self._isolates.invoke(invoke, invocation)
            failure = Failure("Error", WALL_EXCEEDED)
            return Done("exceededWallTime", [failure], cpu_ms=invocation.cpu_ms)
        except asyncio.CancelledError:
            if not invocation.given_up:
                raise
            if invocation.evicted:
                failure = Failure("Error", MEMORY_EXCEEDED)
                return Done("exceededMemory", [failure], cpu_ms=invocation.cpu_ms)
            return Done("canceled", cpu_ms=invocation.cpu_ms)
        except Exception as error:
            # A bug in edgesim: log it; only this invocation fails.
            log.exception("internal error", worker=self.name, handler=handler)
            failure = Failure("Error", f"internal error: {error!r}")
            return Done("internalError", [failure], fault=LOST)
        finally:
            invocation.task = None


def _counted() -> Lineage:
    """Return the lineage of an event other than a request, with its first invocation counted."""
    lineage = Lineage()
    lineage.count()
    return lineage


async def _fetch_event(request: HttpRequest, invocation: Invocation) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.url,
        "headers": request.headers,
        "body": await invocation.give_body(request.body, counted=False),  # its sender keeps it
        "cf": request.cf,
    }

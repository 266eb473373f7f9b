"""Admin endpoints that only look: where an event is, and new invocations as they finish."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

import anyio
import anyio.lowlevel
import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from edgesim.cost.bill import Bill, bill
from edgesim.cost.prices import read_prices
from edgesim.cost.usage import a_month_of, roles_of, used
from edgesim.dev import sse
from edgesim.model import TraceItem
from edgesim.observation.locate import locate
from edgesim.observation.recent import (
    READERS_MAX,
    KeptInvocation,
    RecentTraces,
    Subscription,
)
from edgesim.observation.sighting import Needle, Sighting
from edgesim.observation.topology import Topology, topology
from edgesim.observation.traces import STEP, holds
from edgesim.runtime.trace import shown
from edgesim.simulator import Simulator, stats

LIMIT_MAX = 1000
Status = Literal["all", "ok", "failed"]
HEARTBEAT_SECONDS = 15.0
"""Interval of comments on an idle stream."""


class TraceQuery(msgspec.Struct, frozen=True):
    """Query of ``trace``."""

    q: Annotated[str, Meta(description="text to search for, 1 to 1000 characters")] = ""


class FlowReport(msgspec.Struct, frozen=True):
    """The graph of a project with its counters; times are Unix seconds."""

    now: float
    graph: Topology
    isolation: dict[str, str]
    stats: dict[str, Any]
    window_ends_at: dict[str, float | None]
    oldest_seconds: dict[str, float]


class InvocationsQuery(msgspec.Struct, frozen=True):
    """Query of ``invocations``."""

    worker: Annotated[str, Meta(description="name of a Worker; empty for all")] = ""
    text: Annotated[str, Meta(description="text in its request, console or exception")] = ""
    status: Annotated[Status, Meta(description="outcome ok, or any other")] = "all"
    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] = 100


class RecentTrace(TraceItem, kw_only=True):
    """A trace with its id, by which the invocation can be sent again."""

    id: str


class Invocations(msgspec.Struct, frozen=True):
    """Recent traces, newest first; ``count`` is the number of all since the start."""

    count: int
    invocations: list[RecentTrace]


class Cost(msgspec.Struct, frozen=True):
    """The bill of this run so far, and of a month at its rate."""

    seconds: float
    used: Bill
    month: Bill


class EventsQuery(msgspec.Struct, frozen=True):
    """Query of ``events``."""

    worker: Annotated[str, Meta(description="name of a Worker; empty for all")] = ""


async def trace(simulator: Simulator, request: Request, query: TraceQuery) -> list[Sighting]:
    """Search the project for a text: every place that holds it, in the order of the stages."""
    recent: RecentTraces = request.app.state.recent
    return [each async for each in locate(simulator, recent.oldest_first(), query.q)]


async def flow(simulator: Simulator, request: Request) -> FlowReport:
    """Return the graph of the project with its counters, open windows and queue ages."""
    primitives = simulator.primitives
    depths, usage = await stats.depths(primitives), await stats.usage(primitives)
    return FlowReport(
        primitives.clock.now(),
        topology(simulator.project),
        {name: simulator.project.isolation_of(name) for name in simulator.workers},
        simulator.counters(depths, usage),
        {name: pipeline.window_ends_at for name, pipeline in primitives.pipelines.items()},
        stats.ages(depths, primitives.clock.now_ms()),
    )


async def invocations(
    simulator: Simulator, request: Request, query: InvocationsQuery
) -> Invocations:
    """Return recent traces, newest first: of one Worker, with a text."""
    recent: RecentTraces = request.app.state.recent
    needle = Needle(query.text)
    found: list[RecentTrace] = []
    for count, kept in enumerate(recent.newest_first()):
        if count % STEP == 0:
            await anyio.lowlevel.checkpoint()
        item = kept.item
        if (
            query.worker in {"", item.script_name}
            and (query.status == "all" or (item.outcome == "ok") == (query.status == "ok"))
            and (not query.text or holds(item, needle))
        ):
            fields = msgspec.structs.asdict(shown(item))
            found.append(RecentTrace(**fields, id=recent.id_of(kept)))
            if len(found) == query.limit:
                break
    return Invocations(recent.count, found)


async def cost(simulator: Simulator, request: Request) -> Cost:
    """Return the bill of this run so far, and of a month at its rate."""
    roles = roles_of(simulator.project)
    seconds = max(simulator.primitives.clock.elapsed() - simulator.opened_at, 1.0)
    usage, prices = used(await simulator.stats(), roles), read_prices()
    month = bill(a_month_of(usage, seconds), prices)
    return Cost(seconds, bill(usage, prices, included=False), month)


async def events(simulator: Simulator, request: Request, query: EventsQuery) -> Response:
    """Stream invocations as they finish, as Server-Sent Events.

    Events are named ``invocation`` (a trace as JSON) and ``dropped`` (the number of traces that
    the client was too slow for, since the stream began).
    """
    recent: RecentTraces = request.app.state.recent
    if not recent.has_room:
        problem = f"there are {READERS_MAX} readers of events already; close one of them\n"
        return PlainTextResponse(problem, 503)
    headers = {"cache-control": "no-store"}
    stream = _stream(recent, query.worker)
    first = await anext(stream)  # it counts as a reader from here on
    whole = _continued(first, stream)
    return StreamingResponse(whole, media_type="text/event-stream", headers=headers)


async def _continued(first: bytes, stream: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    async with aclosing(stream):
        yield first
        async for event in stream:
            yield event


async def _stream(recent: RecentTraces, worker: str) -> AsyncGenerator[bytes]:
    with recent.subscribe() as subscription:
        yield b": edgesim\n\n"
        dropped = 0
        while (item := await _next(subscription)) is not None:
            if subscription.dropped > dropped:
                dropped = subscription.dropped
                yield sse.event("dropped", dropped)
            if not item:
                yield sse.IDLE
            elif worker in {"", item.item.script_name}:
                yield sse.event("invocation", shown(item.item), recent.id_of(item))


async def _next(subscription: Subscription) -> KeptInvocation | Literal[False] | None:
    """The next one; False after a time without any, None at the end of the stream."""
    try:
        with anyio.move_on_after(HEARTBEAT_SECONDS):
            return await subscription.receive()
    except anyio.EndOfStream:
        return None
    return False

"""Admin endpoints that only look: where an event is, and new invocations as they finish."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import anyio
import anyio.lowlevel
import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from edgesim.cost.bill import bill
from edgesim.cost.prices import read_prices
from edgesim.cost.usage import a_month_of, roles_of, used
from edgesim.dev import sse
from edgesim.errors import UsageError
from edgesim.model import TraceItem
from edgesim.observation.locate import locate
from edgesim.observation.recent import READERS_MAX, RecentTraces, Subscription
from edgesim.observation.sighting import Needle
from edgesim.observation.topology import topology
from edgesim.observation.traces import STEP, holds
from edgesim.runtime.trace import shown
from edgesim.simulator import Simulator, stats

LIMIT_MAX = 1000
HEARTBEAT_SECONDS = 15.0
"""Interval of comments on an idle stream."""


async def trace(simulator: Simulator, request: Request) -> Response:
    """Answer a JSON list of the places that hold the text ``q``."""
    recent: RecentTraces = request.app.state.recent
    text = request.query_params.get("q", "")
    found = [each async for each in locate(simulator, recent.oldest_first(), text)]
    return JSONResponse(msgspec.to_builtins(found))


async def flow(simulator: Simulator, request: Request) -> Response:
    """Answer the graph of the project with its counters, open windows and queue ages."""
    primitives = simulator.primitives
    depths, usage = await stats.depths(primitives), await stats.usage(primitives)
    windows = {name: pipeline.window_ends_at for name, pipeline in primitives.pipelines.items()}
    return JSONResponse(
        {
            "now": primitives.clock.now(),
            "graph": msgspec.to_builtins(topology(simulator.project)),
            "isolation": {name: simulator.project.isolation_of(name) for name in simulator.workers},
            "stats": simulator.counters(depths, usage),
            "window_ends_at": windows,
            "oldest_seconds": stats.ages(depths, primitives.clock.now_ms()),
        }
    )


async def invocations(simulator: Simulator, request: Request) -> Response:
    """Answer recent traces, newest first: of one ``worker``, with a ``text``, at most ``limit``."""
    recent: RecentTraces = request.app.state.recent
    worker, text = request.query_params.get("worker"), request.query_params.get("text", "")
    limit = _limit(request.query_params.get("limit", "100"))
    found: list[TraceItem] = []
    for count, item in enumerate(reversed(recent.oldest_first())):
        if count % STEP == 0:
            await anyio.lowlevel.checkpoint()
        if worker in {None, "", item.script_name} and (not text or holds(item, Needle(text))):
            found.append(shown(item))
            if len(found) == limit:
                break
    body = msgspec.json.encode({"count": recent.count, "invocations": found})
    return Response(body, media_type="application/json")


async def cost(simulator: Simulator, request: Request) -> Response:
    """Answer the bill of this run so far, and of a month at its rate."""
    roles = roles_of(simulator.project)
    seconds = max(simulator.primitives.clock.elapsed() - simulator.opened_at, 1.0)
    usage, prices = used(await simulator.stats(), roles), read_prices()
    return JSONResponse(
        msgspec.to_builtins(
            {
                "seconds": seconds,
                "used": bill(usage, prices, included=False),
                "month": bill(a_month_of(usage, seconds), prices),
            }
        )
    )


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= LIMIT_MAX:
        raise UsageError(f"limit must be a number from 1 to {LIMIT_MAX}, not {text!r}")
    return int(text)


async def events(simulator: Simulator, request: Request) -> Response:
    """Stream finished invocations as Server-Sent Events; ``worker`` selects one Worker.

    Events are named ``invocation`` (a trace as JSON) and ``dropped`` (the number of traces that
    the client was too slow for, since the stream began).
    """
    recent: RecentTraces = request.app.state.recent
    if not recent.has_room:
        problem = f"there are {READERS_MAX} readers of events already; close one of them\n"
        return PlainTextResponse(problem, 503)
    headers = {"cache-control": "no-store"}
    stream = _stream(recent, request.query_params.get("worker"))
    first = await anext(stream)  # it counts as a reader from here on
    whole = _continued(first, stream)
    return StreamingResponse(whole, media_type="text/event-stream", headers=headers)


async def _continued(first: bytes, stream: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    async with aclosing(stream):
        yield first
        async for event in stream:
            yield event


async def _stream(recent: RecentTraces, worker: str | None) -> AsyncGenerator[bytes]:
    with recent.subscribe() as subscription:
        yield b": edgesim\n\n"
        dropped = 0
        while (item := await _next(subscription)) is not None:
            if subscription.dropped > dropped:
                dropped = subscription.dropped
                yield sse.event("dropped", dropped)
            if isinstance(item, TraceItem):
                if worker in {None, item.script_name}:
                    yield sse.event("invocation", shown(item))
            else:
                yield sse.IDLE


async def _next(subscription: Subscription) -> TraceItem | bool | None:
    """The next trace; False after a time without any, None at the end of the stream."""
    try:
        with anyio.move_on_after(HEARTBEAT_SECONDS):
            return await subscription.receive()
    except anyio.EndOfStream:
        return None
    return False

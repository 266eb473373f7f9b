"""Admin endpoints that only look: where an event is, and new invocations as they finish."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from edgesim.model import TraceItem
from edgesim.observation.locate import locate
from edgesim.observation.recent import RecentTraces, Subscription, shown
from edgesim.simulator import Simulator

HEARTBEAT_SECONDS = 15.0
"""Interval of comments on an idle stream, so that neither side takes it for dead."""


async def trace(simulator: Simulator, request: Request) -> Response:
    """Answer a JSON list of the places that hold the text ``q``."""
    recent: RecentTraces = request.app.state.recent
    text = request.query_params.get("q", "")
    found = [each async for each in locate(simulator, recent.oldest_first(), text)]
    return JSONResponse(msgspec.to_builtins(found))


async def events(simulator: Simulator, request: Request) -> Response:
    """Stream finished invocations as Server-Sent Events; ``worker`` selects one Worker.

    Events are named ``invocation`` (a trace as JSON) and ``dropped`` (the number of traces that
    the client was too slow for, since the stream began).
    """
    recent: RecentTraces = request.app.state.recent
    headers = {"cache-control": "no-store"}
    stream = _stream(recent, request.query_params.get("worker"))
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _stream(recent: RecentTraces, worker: str | None) -> AsyncIterator[bytes]:
    with recent.subscribe() as subscription:
        yield b": edgesim\n\n"
        dropped = 0
        while (item := await _next(subscription)) is not None:
            if subscription.dropped > dropped:
                dropped = subscription.dropped
                yield _event("dropped", dropped)
            if isinstance(item, TraceItem):
                if worker in {None, item.script_name}:
                    yield _event("invocation", shown(item))
            else:
                yield b": idle\n\n"


async def _next(subscription: Subscription) -> TraceItem | bool | None:
    """The next trace; False after a time without any, None at the end of the stream."""
    try:
        with anyio.move_on_after(HEARTBEAT_SECONDS):
            return await subscription.traces.receive()
    except anyio.EndOfStream:
        return None
    return False


def _event(name: str, data: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))

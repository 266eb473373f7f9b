"""GET tap: records as they pass one place of the project, as Server-Sent Events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import anyio
import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from edgesim.dev import sse
from edgesim.errors import RunError
from edgesim.observation.places import place_of
from edgesim.simulator import Simulator
from edgesim.taps import RATE, RATE_MAX, READERS_MAX, TapReader, Taps

IDLE_SECONDS = 1.0
"""Interval of comments on an idle stream: by them a client notices that nobody reads its output."""


class TapQuery(msgspec.Struct, frozen=True):
    """Query of ``tap``."""

    place: Annotated[str, Meta(description="such as pipelines.NAME, or the name of a Worker")] = ""
    rate: Annotated[int, Meta(ge=1, le=RATE_MAX)] = RATE
    """Records a second; further ones are left out."""


async def tap(simulator: Simulator, request: Request, query: TapQuery) -> Response:
    """Stream the records that pass a place, as Server-Sent Events.

    Events are named ``record``, and ``skipped`` (the number of records left out since the start).
    """
    taps: Taps = request.app.state.taps
    place = place_of(simulator, query.place)
    if taps.reader_count >= READERS_MAX:
        raise RunError(f"there are {READERS_MAX} readers already; end one of them")
    headers = {"cache-control": "no-store"}
    stream = _stream(taps, place, query.rate)
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _stream(taps: Taps, place: str, rate: int) -> AsyncIterator[bytes]:
    with taps.reading(place, rate) as reader:
        yield sse.event("place", place)
        skipped = 0
        while (record := await _next(reader)) is not None:
            yield sse.event("record", msgspec.Raw(record)) if record else sse.IDLE
            if reader.skipped > skipped:
                skipped = reader.skipped
                yield sse.event("skipped", skipped)


async def _next(reader: TapReader) -> bytes | None:
    """The next record; empty after a time without any, None at the end of the stream."""
    try:
        with anyio.move_on_after(IDLE_SECONDS):
            return await reader.records.receive()
    except anyio.EndOfStream:
        return None
    return b""

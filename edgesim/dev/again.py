"""Admin endpoints on recent invocations: show one, send it again, record a fixture of some."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from edgesim.dev.record import fixture_line, recorded
from edgesim.errors import UsageError
from edgesim.model import HttpRequest, TraceItem
from edgesim.observation.again import Comparison, compared, send_again
from edgesim.observation.recent import TRACES_MAX, KeptInvocation, RecentTraces
from edgesim.observation.sighting import iso
from edgesim.runtime.finished import FinishedInvocation
from edgesim.runtime.trace import shown
from edgesim.simulator import Simulator

NDJSON = "application/x-ndjson"
PIECE_BYTES = 1 << 16
"""Size of a piece of a fixture: a few milliseconds of work."""


class DeliveredMessage(msgspec.Struct, frozen=True):
    """A message of a batch."""

    id: str
    timestamp: str
    attempts: int
    body: Any


class InvocationDetail(msgspec.Struct, frozen=True):
    """An invocation with its event.

    ``request`` is that of a fixture, without secrets.  ``problem`` is the reason why the event
    cannot be sent again; empty if it can.
    """

    id: str
    trace: TraceItem
    problem: str
    request: dict[str, Any] | None
    messages: list[DeliveredMessage]


class InvocationQuery(msgspec.Struct, frozen=True):
    """Query of ``invocation``."""

    id: Annotated[str, Meta(description="from `invocations` or `events`")]


class AgainQuery(InvocationQuery, frozen=True):
    """Query of ``again``."""

    message: Annotated[str, Meta(description="id of the only message to send; default: all")] = ""


class WantedFixture(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``fixture``: the ids of invocations, in any order."""

    ids: Annotated[list[str], Meta(max_length=TRACES_MAX)]


async def show(simulator: Simulator, request: Request, query: InvocationQuery) -> InvocationDetail:
    """Return an invocation with its event."""
    recent: RecentTraces = request.app.state.recent
    kept = recent.known(query.id)
    event = kept.again.event if kept.again else None
    is_batch = kept.again is not None and kept.again.handler == "queue"
    messages = event["messages"] if is_batch and event is not None else []
    return InvocationDetail(
        query.id,
        shown(kept.item),
        recent.problem_of(kept),
        recorded(event) if isinstance(event, HttpRequest) else None,
        [
            DeliveredMessage(each["id"], iso(each["timestamp"]), each["attempts"], each["body"])
            for each in messages
        ],
    )


async def again(simulator: Simulator, request: Request, query: AgainQuery) -> Comparison:
    """Send the event again to the code as saved now, and compare the outcomes."""
    recent: RecentTraces = request.app.state.recent
    kept = recent.known(query.id)
    if kept.again is None:
        raise UsageError(f"invocation {query.id}: {recent.problem_of(kept)}")
    before = kept.again
    after, reloaded = await send_again(simulator, before, query.message)
    return compared(query.id, recent.id_of_trace(after.item), before, after, reloaded)


async def fixture(simulator: Simulator, request: Request) -> Response:
    """Record the requests among some invocations as a fixture for replay.

    The headers ``edgesim-requests`` and ``edgesim-left-out`` have the number of requests, and the
    numbers of other invocations by reason.
    """
    recent: RecentTraces = request.app.state.recent
    try:
        wanted = msgspec.json.decode(await request.body(), type=WantedFixture)
    except msgspec.MsgspecError as error:
        raise UsageError(str(error)) from error
    chosen: list[FinishedInvocation] = []
    left_out: Counter[str] = Counter()
    found = {kept.number: kept for kept in map(recent.known, wanted.ids)}
    for _, kept in sorted(found.items()):
        reason = _left_out(kept)
        if reason:
            left_out[reason] += 1
        elif kept.again is not None:
            chosen.append(kept.again)
    counts = {
        "edgesim-requests": str(len(chosen)),
        "edgesim-left-out": msgspec.json.encode(left_out).decode(),
    }
    chosen.sort(key=lambda each: each.item.event_timestamp)
    lines = _lines(chosen, simulator.project.entry)
    return StreamingResponse(lines, media_type=NDJSON, headers=counts)


def _left_out(kept: KeptInvocation) -> str:
    if "request" not in (kept.item.event or {}):
        return "no request: a replay makes batches, traces and schedules itself"
    if kept.again is None:
        return "its body is not kept"
    return "called by another Worker" if kept.again.depth else ""


async def _lines(chosen: Sequence[FinishedInvocation], entry: str) -> AsyncIterator[bytes]:
    begun = chosen[0].item.event_timestamp if chosen else 0.0
    start: str | None = iso(begun)
    piece = bytearray()
    for each in chosen:
        worker = each.item.script_name
        seconds = (each.item.event_timestamp - begun) / 1000
        piece += fixture_line(each.event, None if worker == entry else worker, seconds, start)
        start = None
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)

"""Search of traces: recent ones, and those that wait for a Tail Worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import anyio.lowlevel

from edgesim.model import TraceItem
from edgesim.observation.sighting import Needle, Sighting, cut, iso
from edgesim.runtime.tail import TailConsumer

STEP = 100
"""Maximum traces searched in one turn of the event loop."""


async def in_traces(items: Iterable[TraceItem], needle: Needle) -> AsyncIterator[Sighting]:
    """Requests, console lines and exceptions that contain the text, in order of time."""
    for count, item in enumerate(items):
        if count % STEP == 0:
            await anyio.lowlevel.checkpoint()
        for sighting in _in_trace(item, needle):
            yield sighting


def in_tails(tails: Mapping[str, TailConsumer], needle: Needle) -> Iterator[Sighting]:
    """Traces with the text that no Tail Worker has processed yet."""
    for name, tail in tails.items():
        for item in tail.waiting():
            for found in _in_trace(item, needle):
                detail = {"from": found.place, **found.detail}
                yield Sighting("tail", f"waits for {name}", found.at, detail)


def holds(item: TraceItem, needle: Needle) -> bool:
    """True if a request, console line or exception of the invocation contains the text."""
    return any(True for _ in _in_trace(item, needle))


def _in_trace(item: TraceItem, needle: Needle) -> Iterator[Sighting]:
    worker = item.script_name
    logs = [entry for entry in item.logs if any(needle.is_in(_text(p)) for p in entry.message)]
    exceptions = [each for each in item.exceptions if needle.is_in(f"{each.name}: {each.message}")]
    request = (item.event or {}).get("request")
    asked = request is not None and (
        needle.is_in(request["url"]) or any(map(needle.is_in, request["headers"].values()))
    )
    if asked or logs or exceptions:
        yield Sighting("request", worker, iso(item.event_timestamp), _invocation(item))
    for entry in logs:
        text = " ".join(_text(part) for part in entry.message)
        yield Sighting("log", worker, iso(entry.timestamp), {"text": cut(text)})
    for exception in exceptions:
        text = f"{exception.name}: {exception.message}"
        yield Sighting("exception", worker, iso(exception.timestamp), {"text": cut(text)})


def _invocation(item: TraceItem) -> dict[str, Any]:
    event = item.event or {}
    detail: dict[str, Any] = {"outcome": item.outcome, "wall_ms": item.wall_time}
    if "request" in event:
        request = event["request"]
        detail["request"] = f"{request['method']} {cut(request['url'])}"
        if "response" in event:
            detail["status"] = event["response"]["status"]
    elif "queue" in event:
        detail["batch"] = f"{event['batchSize']} messages of queue {event['queue']}"
    return detail


def _text(part: Any) -> str:
    return part if isinstance(part, str) else str(part)

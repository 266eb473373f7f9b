"""Admin endpoints on the run as a whole: counters, metrics, drain, and schedules by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Generic, TypeVar

import anyio
import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from edgesim import line_writer
from edgesim.config.cron import parse_cron
from edgesim.dev import metrics, resources
from edgesim.dev.edge import host_of
from edgesim.dev.endpoints import json_reply
from edgesim.dev.front import Front
from edgesim.errors import RunError, UsageError
from edgesim.pipelines.streams.drops import DroppedSample
from edgesim.runtime.routing import named_by
from edgesim.simulator import Simulator, stats

DRAIN_SECONDS_MAX = 86_400
TIME_MS_MAX = 8_640_000_000_000_000
"""Maximum of a JavaScript Date."""
STORE_SECONDS = 5.0
"""Timeout of a store's reply to metrics; collectors mostly time out after ten seconds."""

_Answer = TypeVar("_Answer")


class DrainQuery(msgspec.Struct, frozen=True):
    """Query of ``drain``."""

    timeout: Annotated[float, Meta(ge=0, le=DRAIN_SECONDS_MAX, description="seconds")] = 60.0


class Drained(msgspec.Struct, frozen=True):
    """Result of a drain, and the counters after it."""

    drained: bool
    left: dict[str, Any]
    dead_letters: dict[str, int]
    stats: dict[str, Any]


class ScheduledQuery(msgspec.Struct, frozen=True):
    """Query of a schedule by hand; ``format`` json returns more than the outcome."""

    cron: str = "* * * * *"
    time: (
        Annotated[int, Meta(ge=-TIME_MS_MAX, le=TIME_MS_MAX, description="milliseconds since 1970")]
        | None
    ) = None
    worker: Annotated[str, Meta(description="default: the Worker of the host, or the entry")] = ""
    format: str = ""


async def dropped(simulator: Simulator, request: Request) -> Response:
    """Return the last records that a stream dropped, with the reasons."""
    name = request.path_params["name"]
    if name not in simulator.primitives.streams:
        known = ", ".join(simulator.primitives.streams) or "none"
        return PlainTextResponse(f"there is no stream named {name!r}; known: {known}\n", 404)
    samples: list[DroppedSample] = list(simulator.primitives.streams[name].drops.samples)
    return json_reply(samples)


async def counters(simulator: Simulator, request: Request) -> dict[str, Any]:
    """Return the counters of all stages."""
    return await simulator.stats() | _server_stats(request)


def _server_stats(request: Request) -> dict[str, Any]:
    """Counters of the serving process, added to those of the project."""
    front: Front = request.app.state.front
    found = {
        "front": {"waiting": front.waiting, "refused": front.refused},
        "log": {"dropped": line_writer.dropped()},
    }
    return found if front.exporter is None else found | {"telemetry": front.exporter.counters()}


async def prometheus(simulator: Simulator, request: Request) -> Response:
    """Return counters, ages of queues and use of resources for Prometheus."""
    async with anyio.create_task_group() as tasks:
        depths = _StoreQuery(partial(stats.depths, simulator.primitives))
        usage = _StoreQuery(partial(stats.usage, simulator.primitives))
        tasks.start_soon(depths.ask)
        tasks.start_soon(usage.ask)
    samples = [
        *metrics.of_stats(
            simulator.counters(depths.answer or {}, usage.answer or {}) | _server_stats(request)
        ),
        *metrics.of_queues(stats.ages(depths.answer or {}, simulator.primitives.clock.now_ms())),
        *metrics.of_stores({"queues": depths.answer is not None, "r2": usage.answer is not None}),
        *metrics.of_workers({name: each.wall for name, each in simulator.workers.items()}),
        *resources.samples(),
    ]
    return Response(metrics.render(samples), media_type=metrics.CONTENT_TYPE)


class _StoreQuery(Generic[_Answer]):
    """A query to a store; ``answer`` stays None if the store fails or times out."""

    def __init__(self, question: Callable[[], Awaitable[_Answer]]) -> None:
        self.answer: _Answer | None = None
        self._question = question

    async def ask(self) -> None:
        with anyio.move_on_after(STORE_SECONDS), suppress(RunError):
            self.answer = await self._question()


async def drain(simulator: Simulator, request: Request, query: DrainQuery) -> Response:
    """End the windows of the pipelines, and deliver until no work is left."""
    found = await simulator.draining.drain(query.timeout)
    after = await simulator.stats() | _server_stats(request)
    result = Drained(not found.left, found.left, found.dead_letters, after)
    return json_reply(result, 504 if found.left else 200)


async def scheduled(simulator: Simulator, request: Request, query: ScheduledQuery) -> Response:
    """Run a scheduled handler."""
    by_host, _ = named_by(host_of(request.scope))
    name = query.worker or by_host or simulator.project.entry
    if name not in simulator.workers or not simulator.workers[name].has("scheduled"):
        return PlainTextResponse(f"Worker {name!r} has no scheduled handler\n", 404)
    try:
        parse_cron(query.cron)
    except ValueError as error:
        raise UsageError(str(error)) from error
    result = await simulator.scheduled_result(name, query.cron, query.time)
    status = 200 if result.outcome == "ok" else 500
    if query.format == "json":
        return json_reply(result, status)
    return PlainTextResponse(f"{result.outcome}\n", status)

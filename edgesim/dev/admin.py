"""Endpoints under /cdn-cgi/: health, ready, stats, drain, sql, operations, manual events.

They are for the user of this machine or for clients with the token; access.py has the rules. Only
health and ready are open to every client: probes have no token, and these replies reveal nothing
else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import anyio
import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from edgesim import line_writer, operations
from edgesim.config.cron import parse_cron
from edgesim.dev import faults as fault_endpoints
from edgesim.dev import metrics, observe, resources, tapping
from edgesim.dev.access import Access
from edgesim.dev.catalog_api import catalog_routes
from edgesim.dev.edge import host_of
from edgesim.dev.faults import StoreFaults
from edgesim.dev.front import Front
from edgesim.dev.pages import page_routes
from edgesim.dev.s3_api.app import s3_routes
from edgesim.errors import PlatformError, RunError, UsageError
from edgesim.model import HttpRequest, Stream, iterate
from edgesim.observation.recent import RecentTraces
from edgesim.r2.bucket import R2ObjectBody
from edgesim.runtime.routing import named_by
from edgesim.simulator import Simulator, stats
from edgesim.taps import Taps

PREFIX = "/cdn-cgi/edgesim"
SCHEDULED = ("/cdn-cgi/local/scheduled", "/cdn-cgi/handler/scheduled")
"""Wrangler's current path, and the path before 4.117, which Wrangler still serves."""
DRAIN_SECONDS = 60.0
DRAIN_SECONDS_MAX = 86_400
TIME_MS_MAX = 8_640_000_000_000_000
"""Maximum of a JavaScript Date."""
STORE_SECONDS = 5.0
"""Timeout of a store's reply to metrics; collectors mostly time out after ten seconds."""


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST operations."""

    operation: str
    arguments: dict[str, Any] = {}


_Answer = TypeVar("_Answer")
Endpoint = Callable[[Simulator, Request], Awaitable[Response]]


def admin_app(
    front: Front,
    access: Access,
    recent: RecentTraces,
    taps: Taps,
    is_ready: Callable[[], bool],
    problem: Callable[[], str],
    faults: StoreFaults | None = None,
) -> ASGIApp:
    """Build the application.

    ``problem`` returns the reason why written data is no longer safe, or an empty string.
    Without ``faults`` none can be switched on.
    """

    def guarded(
        endpoint: Endpoint, *, worker_hosts: bool = False
    ) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            refusal = access.refusal(request.scope, front.edge, worker_hosts=worker_hosts)
            if refusal is not None:
                return PlainTextResponse(refusal + "\n", 403)
            try:
                if endpoint is _drain and (found := problem()):
                    return PlainTextResponse(f"not drained: {found}\n", 503)
                return await endpoint(await front.simulator(), request)
            except (UsageError, PlatformError) as error:
                return PlainTextResponse(f"{error}\n", 400)
            except RunError as error:  # a store does not reply
                return PlainTextResponse(f"{error}\n", 503)
            except ClientDisconnect:
                return Response(status_code=400)  # the client has disconnected

        return serve

    async def ready(request: Request) -> Response:
        now = is_ready() and not problem()
        return JSONResponse({"ready": now}, 200 if now else 503)

    async def health(request: Request) -> Response:
        if found := problem():
            return JSONResponse({"status": "failed", "problem": found}, 503)
        failing = front.failing_sinks()
        refusal = access.refusal(request.scope, front.edge) if failing else None
        if failing and refusal is None:  # names and reasons are not for every client
            return JSONResponse({"status": "ok", "failing_sinks": failing})
        return JSONResponse({"status": "ok"})

    app = Starlette(
        routes=[
            Route(f"{PREFIX}/health", health, methods=["GET"]),
            Route(f"{PREFIX}/ready", ready, methods=["GET"]),
            Route(f"{PREFIX}/stats", guarded(_stats), methods=["GET"]),
            Route(f"{PREFIX}/metrics", guarded(_metrics), methods=["GET"]),
            Route(f"{PREFIX}/streams/{{name}}/dropped", guarded(_dropped), methods=["GET"]),
            Route(f"{PREFIX}/trace", guarded(observe.trace), methods=["GET"]),
            Route(f"{PREFIX}/events", guarded(observe.events), methods=["GET"]),
            Route(f"{PREFIX}/tap", guarded(tapping.tap), methods=["GET"]),
            Route(f"{PREFIX}/faults", guarded(fault_endpoints.show), methods=["GET"]),
            Route(f"{PREFIX}/faults", guarded(fault_endpoints.switch), methods=["PUT"]),
            Route(f"{PREFIX}/flow", guarded(observe.flow), methods=["GET"]),
            Route(f"{PREFIX}/invocations", guarded(observe.invocations), methods=["GET"]),
            Route(f"{PREFIX}/cost", guarded(observe.cost), methods=["GET"]),
            *page_routes(PREFIX),
            *catalog_routes(front, access),
            *s3_routes(front, access),
            Route(f"{PREFIX}/drain", guarded(_drain), methods=["POST"]),
            Route(f"{PREFIX}/sql", guarded(_sql), methods=["POST"]),
            Route(f"{PREFIX}/operations", guarded(_operate), methods=["POST"]),
            Route(f"{PREFIX}/r2", guarded(_r2_get), methods=["GET"]),
            Route(f"{PREFIX}/r2", guarded(_r2_put), methods=["PUT"]),
            *(
                Route(path, guarded(_scheduled, worker_hosts=True), methods=["GET", "POST"])
                for path in SCHEDULED
            ),
        ]
    )
    app.state.front = front
    app.state.recent = recent
    app.state.taps = taps
    app.state.faults = faults
    return app


async def _dropped(simulator: Simulator, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in simulator.primitives.streams:
        known = ", ".join(simulator.primitives.streams) or "none"
        return PlainTextResponse(f"there is no stream named {name!r}; known: {known}\n", 404)
    return JSONResponse(msgspec.to_builtins(list(simulator.primitives.streams[name].drops.samples)))


async def _stats(simulator: Simulator, request: Request) -> Response:
    return JSONResponse(await simulator.stats() | _server_stats(request))


def _server_stats(request: Request) -> dict[str, Any]:
    """Counters of the serving process, added to those of the project."""
    front: Front = request.app.state.front
    return {
        "front": {"waiting": front.waiting, "refused": front.refused},
        "log": {"dropped": line_writer.dropped()},
    }


async def _metrics(simulator: Simulator, request: Request) -> Response:
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


async def _drain(simulator: Simulator, request: Request) -> Response:
    asked = request.query_params.get("timeout", str(DRAIN_SECONDS))
    timeout = _seconds(asked)
    if timeout is None:
        problem = (
            f"timeout must be a number of seconds from 0 to {DRAIN_SECONDS_MAX}, not {asked!r}"
        )
        return PlainTextResponse(f"{problem}\n", 400)
    found = await simulator.draining.drain(timeout)
    return JSONResponse(
        {
            "drained": not found.left,
            "left": found.left,
            "dead_letters": found.dead_letters,
            "stats": await simulator.stats() | _server_stats(request),
        },
        504 if found.left else 200,
    )


def _seconds(text: str) -> float | None:
    """Parse a drain's timeout; None if it is not a number from 0 to DRAIN_SECONDS_MAX."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds <= DRAIN_SECONDS_MAX else None


async def _sql(simulator: Simulator, request: Request) -> Response:
    wanted = request.query_params.get("format", "JSON")
    answer = await simulator.primitives.clickhouse(
        HttpRequest(
            "POST", f"http://clickhouse/?default_format={quote(wanted)}", [], await request.body()
        )
    )
    headers = {name: value for name, value in answer.headers if name.lower() != "content-length"}
    return StreamingResponse(iterate(answer.body), answer.status, headers)


async def _operate(simulator: Simulator, request: Request) -> Response:
    try:
        wanted = msgspec.json.decode(await request.body(), type=_Wanted)
        result = await operations.perform(simulator, wanted.operation, wanted.arguments)
        if isinstance(result, operations.PagedRows):
            return await _streamed(result.as_json(), "application/json")
        return JSONResponse(result)
    except (UsageError, PlatformError, msgspec.MsgspecError) as error:
        return PlainTextResponse(f"{error}\n", 400)


async def _r2_get(simulator: Simulator, request: Request) -> Response:
    bucket, key = _parameter(request, "bucket"), _parameter(request, "key")
    operations.known_bucket(simulator, bucket)
    found = await simulator.primitives.bucket(bucket).get(key)
    if not isinstance(found, R2ObjectBody):
        return PlainTextResponse(f"bucket {bucket!r} has no object {key!r}\n", 404)
    return await _streamed(aiter(found.body), "application/octet-stream")


async def _streamed(pieces: AsyncIterator[bytes], media_type: str) -> Response:
    """Stream a response.

    An error before the second piece is raised; a later one truncates the response.
    """
    first = await anext(pieces, b"")
    second = await anext(pieces, None)

    async def all_pieces() -> AsyncIterator[bytes]:
        yield first
        if second is not None:
            yield second
            async for piece in pieces:
                yield piece

    return StreamingResponse(all_pieces(), media_type=media_type)


async def _r2_put(simulator: Simulator, request: Request) -> Response:
    bucket, key = _parameter(request, "bucket"), _parameter(request, "key")
    operations.known_bucket(simulator, bucket)
    await simulator.primitives.bucket(bucket).put(key, Stream(request.stream()))
    return PlainTextResponse("OK\n")


def _parameter(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise UsageError(f"the query parameter {name!r} is missing")
    return value


async def _scheduled(simulator: Simulator, request: Request) -> Response:
    by_host, _ = named_by(host_of(request.scope))
    name = request.query_params.get("worker", by_host or simulator.project.entry)
    if name not in simulator.workers or not simulator.workers[name].has("scheduled"):
        return PlainTextResponse(f"Worker {name!r} has no scheduled handler\n", 404)
    cron = request.query_params.get("cron", "* * * * *")
    try:
        parse_cron(cron)
        time_ms = int(request.query_params["time"]) if "time" in request.query_params else None
    except ValueError as error:
        return PlainTextResponse(f"{error}\n", 400)
    if time_ms is not None and abs(time_ms) > TIME_MS_MAX:
        return PlainTextResponse("time is milliseconds since 1970, up to 8.64e15\n", 400)
    result = await simulator.scheduled_result(name, cron, time_ms)
    status = 200 if result.outcome == "ok" else 500
    if request.query_params.get("format") == "json":
        return JSONResponse(msgspec.to_builtins(result), status)
    return PlainTextResponse(f"{result.outcome}\n", status)

"""Endpoints under /cdn-cgi/: the table of all, their access, and health and ready.

They are for the user of this machine or for clients with the token; access.py has the rules. Only
health and ready are open to every client: probes have no token, and these replies reveal nothing
else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edgesim.dev import again, observe, run_endpoints, store_endpoints, tapping
from edgesim.dev import faults as fault_endpoints
from edgesim.dev.access import Access
from edgesim.dev.catalog_api import catalog_routes
from edgesim.dev.endpoints import ANY_MEDIA, EVENT_STREAM, TEXT, Endpoint, json_reply
from edgesim.dev.faults import StoreFaults
from edgesim.dev.front import Front
from edgesim.dev.openapi import description
from edgesim.dev.pages import page_routes
from edgesim.dev.s3_api.app import s3_routes
from edgesim.errors import PlatformError, RunError, UsageError
from edgesim.model import ScheduledResult
from edgesim.observation.recent import RecentTraces
from edgesim.pipelines.streams.drops import DroppedSample
from edgesim.taps import Taps

PREFIX = "/cdn-cgi/edgesim"
SCHEDULED = ("/cdn-cgi/local/scheduled", "/cdn-cgi/handler/scheduled")
"""Wrangler's current path, and the path before 4.117, which Wrangler still serves."""


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """``failing_sinks``: the sinks that cannot write, with the reasons."""

    status: Literal["ok", "failed"]
    problem: str = ""
    failing_sinks: dict[str, str] = {}


class Readiness(msgspec.Struct, frozen=True):
    """True while requests are served."""

    ready: bool


GUARDED = [
    Endpoint("GET", f"{PREFIX}/stats", run_endpoints.counters),
    Endpoint("GET", f"{PREFIX}/metrics", run_endpoints.prometheus, reply=TEXT),
    Endpoint(
        "GET",
        f"{PREFIX}/streams/{{name}}/dropped",
        run_endpoints.dropped,
        reply=list[DroppedSample],
        statuses={"404": "no such stream"},
    ),
    Endpoint("GET", f"{PREFIX}/trace", observe.trace),
    Endpoint("GET", f"{PREFIX}/events", observe.events, reply=EVENT_STREAM),
    Endpoint("GET", f"{PREFIX}/tap", tapping.tap, reply=EVENT_STREAM),
    Endpoint("GET", f"{PREFIX}/faults", fault_endpoints.show),
    Endpoint(
        "PUT",
        f"{PREFIX}/faults",
        fault_endpoints.switch,
        body=TEXT,
        reply=fault_endpoints.FaultsThatAreOn,
        statuses={"409": "not in `serve`"},
    ),
    Endpoint("GET", f"{PREFIX}/flow", observe.flow),
    Endpoint("GET", f"{PREFIX}/invocations", observe.invocations),
    Endpoint("GET", f"{PREFIX}/invocation", again.show),
    Endpoint("POST", f"{PREFIX}/invocation/again", again.again),
    Endpoint(
        "POST", f"{PREFIX}/fixture", again.fixture, body=again.WantedFixture, reply=again.NDJSON
    ),
    Endpoint("GET", f"{PREFIX}/cost", observe.cost),
    Endpoint(
        "POST",
        f"{PREFIX}/drain",
        run_endpoints.drain,
        reply=run_endpoints.Drained,
        statuses={"504": "work is left"},
    ),
    Endpoint(
        "POST",
        f"{PREFIX}/sql",
        store_endpoints.sql,
        body=TEXT,
        reply=ANY_MEDIA,
        statuses={"4XX": "ClickHouse refuses the statement", "5XX": "the statement failed"},
    ),
    Endpoint(
        "POST",
        f"{PREFIX}/operations",
        store_endpoints.operate,
        body=store_endpoints.WantedOperation,
        reply=Any,
    ),
    Endpoint(
        "GET",
        f"{PREFIX}/r2",
        store_endpoints.r2_get,
        reply=ANY_MEDIA,
        statuses={"404": "no such object"},
    ),
    Endpoint("PUT", f"{PREFIX}/r2", store_endpoints.r2_put, body=ANY_MEDIA, reply=TEXT),
    *(
        Endpoint(
            "GET POST",
            path,
            run_endpoints.scheduled,
            reply=ScheduledResult,
            statuses={"404": "no such handler", "500": "any outcome but ok"},
            worker_hosts=True,
        )
        for path in SCHEDULED
    ),
]
"""The endpoints of those who may use them; see ``Access``."""


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

    async def guarded(endpoint: Endpoint, request: Request) -> Response:
        worker_hosts = endpoint.worker_hosts
        refusal = access.refusal(request.scope, front.edge, worker_hosts=worker_hosts)
        if refusal is not None:
            return PlainTextResponse(refusal + "\n", 403)
        try:
            if endpoint.function is run_endpoints.drain and (found := problem()):
                return PlainTextResponse(f"not drained: {found}\n", 503)
            return await endpoint.serve(await front.simulator(), request)
        except (UsageError, PlatformError) as error:
            return PlainTextResponse(f"{error}\n", 400)
        except RunError as error:  # a store does not reply
            return PlainTextResponse(f"{error}\n", 503)
        except ClientDisconnect:
            return Response(status_code=400)  # the client has disconnected

    async def ready(request: Request) -> Response:
        """Tell whether requests are served: not at the start, at the end and while reopened."""
        now = is_ready() and not problem()
        return json_reply(Readiness(now), 200 if now else 503)

    async def health(request: Request) -> Response:
        """Tell whether the process can reply, and whether its state directory is there."""
        if found := problem():
            return json_reply(Health("failed", found), 503)
        failing = front.failing_sinks()
        refusal = access.refusal(request.scope, front.edge) if failing else None
        # Names and reasons are not for every client.
        return json_reply(Health("ok", failing_sinks=failing if refusal is None else {}))

    async def openapi(simulator: Any, request: Request) -> dict[str, Any]:
        """Return this description, in the form of OpenAPI 3.1."""
        return description(open_to_all, own)

    unguarded = {"503": "not now"}
    open_to_all = (
        Endpoint("GET", f"{PREFIX}/health", health, reply=Health, statuses=unguarded),
        Endpoint("GET", f"{PREFIX}/ready", ready, reply=Readiness, statuses=unguarded),
    )
    own = (*GUARDED, Endpoint("GET", f"{PREFIX}/openapi.json", openapi))
    app = Starlette(
        routes=[
            *(Route(each.path, each.function, methods=each.methods) for each in open_to_all),
            *(Route(each.path, partial(guarded, each), methods=each.methods) for each in own),
            *page_routes(PREFIX),
            *catalog_routes(front, access),
            *s3_routes(front, access),
        ]
    )
    app.state.front = front
    app.state.recent = recent
    app.state.taps = taps
    app.state.faults = faults
    return app

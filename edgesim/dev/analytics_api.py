"""The SQL API of Analytics Engine: ``/client/v4/accounts/{account}/analytics_engine/sql``.

The statement is the body of a POST, or ``query`` of a GET. Results have no envelope; errors are one
line of text. Source: https://developers.cloudflare.com/analytics/analytics-engine/sql-api/
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from edgesim.analytics.query import INVALID
from edgesim.dev.api_guard import ACCOUNT, Guard, RefusedError, body_of, failure
from edgesim.dev.front import Front
from edgesim.model import iterate

QUERY_BYTES_MAX = 100_000


def analytics_routes(front: Front, guard: Guard) -> list[Route]:
    """The endpoint's route."""

    async def answer(request: Request) -> Response:
        try:
            guard.check(request)
            statement = await _statement(request)
        except RefusedError as refused:
            return failure(refused.status, refused.code, str(refused))
        except UnicodeDecodeError:
            return PlainTextResponse(f"{INVALID}the statement is not UTF-8\n", 422)
        simulator = await front.simulator()
        found = await simulator.primitives.analytics_sql.answer(statement)
        headers = {"content-type": found.header("content-type") or "text/plain"}
        return StreamingResponse(iterate(found.body), found.status, headers)

    path = f"{ACCOUNT}/analytics_engine/sql"
    return [Route(path, answer, methods=["GET", "POST"])]


async def _statement(request: Request) -> str:
    if request.method == "POST":
        return (await body_of(request, QUERY_BYTES_MAX, 10000)).decode()
    return request.query_params.get("query", "")

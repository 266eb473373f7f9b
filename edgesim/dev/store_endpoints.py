"""Admin endpoints on stores: SQL, operations, and the content of objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from edgesim import operations
from edgesim.dev.endpoints import ANY_MEDIA, JSON, json_reply
from edgesim.errors import UsageError
from edgesim.model import HttpRequest, Stream, iterate
from edgesim.r2.bucket import R2ObjectBody
from edgesim.simulator import Simulator


class SqlQuery(msgspec.Struct, frozen=True):
    """Query of ``sql``."""

    format: Annotated[str, Meta(description="one of ClickHouse's formats")] = "JSON"


class WantedOperation(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``operations``."""

    operation: str
    arguments: dict[str, Any] = {}


class ObjectQuery(msgspec.Struct, frozen=True):
    """Query of ``r2``."""

    bucket: Annotated[str, Meta(min_length=1)]
    key: Annotated[str, Meta(min_length=1)]


async def sql(simulator: Simulator, request: Request, query: SqlQuery) -> Response:
    """Run the ClickHouse statement in the body."""
    url = f"http://clickhouse/?default_format={quote(query.format)}"
    statement = HttpRequest("POST", url, [], await request.body())
    answer = await simulator.primitives.clickhouse(statement)
    headers = {name: value for name, value in answer.headers if name.lower() != "content-length"}
    return StreamingResponse(iterate(answer.body), answer.status, headers)


async def operate(simulator: Simulator, request: Request) -> Response:
    """Run an operation of the commands."""
    try:
        wanted = msgspec.json.decode(await request.body(), type=WantedOperation)
    except msgspec.MsgspecError as error:
        raise UsageError(str(error)) from error
    result = await operations.perform(simulator, wanted.operation, wanted.arguments)
    if isinstance(result, operations.PagedRows):
        return await _streamed(result.as_json(), JSON)
    return json_reply(result)


async def r2_get(simulator: Simulator, request: Request, query: ObjectQuery) -> Response:
    """Return the content of an object."""
    operations.known_bucket(simulator, query.bucket)
    found = await simulator.primitives.bucket(query.bucket).get(query.key)
    if not isinstance(found, R2ObjectBody):
        problem = f"bucket {query.bucket!r} has no object {query.key!r}\n"
        return PlainTextResponse(problem, 404)
    return await _streamed(aiter(found.body), ANY_MEDIA)


async def r2_put(simulator: Simulator, request: Request, query: ObjectQuery) -> Response:
    """Store the body as an object, and send its notifications."""
    operations.known_bucket(simulator, query.bucket)
    await simulator.primitives.bucket(query.bucket).put(query.key, Stream(request.stream()))
    return PlainTextResponse("OK\n")


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

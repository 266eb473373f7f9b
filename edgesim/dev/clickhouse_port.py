"""A separate ClickHouse port for ordinary HTTP clients, which take a host and port but no path.

It listens on loopback only, whatever address the front uses. The rules of the admin endpoints
apply, and web pages are always refused. If EDGESIM_ADMIN_TOKEN is set, it is the password: as a
Bearer token, or where ClickHouse's clients send theirs.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from edgesim.dev.access import Access, bearer
from edgesim.dev.edge import Edge
from edgesim.dev.front import Front, send_response
from edgesim.model import HttpResponse, Stream

HOST = "127.0.0.1"
_EDGE = Edge(loopback=True)
_OWN_SITES = {"none", "same-origin"}


class ClickHousePort:
    """The ASGI application."""

    def __init__(self, front: Front, access: Access) -> None:
        self._front = front
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            response = HttpResponse(403, [("content-type", "text/plain")], f"{refusal}\n".encode())
            await send_response(response, scope, send)
            return
        request = _EDGE.request(scope, Stream(_body(receive)), {})
        simulator = await self._front.simulator()
        try:
            answer = await simulator.primitives.clickhouse(request)
        except ConnectionResetError:
            return  # the client disconnected while sending; its data is discarded
        await send_response(answer, scope, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        if (
            "origin" in headers
            or "referer" in headers
            or not set(headers.getlist("sec-fetch-site")) <= _OWN_SITES
        ):
            return "a web page may not use this ClickHouse"
        if any(self._access.is_admin(each) for each in _passwords(scope, headers)):
            return None
        return self._access.tokenless_problem(scope, _EDGE)


def _passwords(scope: Scope, headers: Headers) -> list[str | None]:
    """Every value that ClickHouse's clients may send as a password, and the Bearer token."""
    query = parse_qs(scope["query_string"].decode("latin-1"))
    return [
        bearer(headers),
        headers.get("x-clickhouse-key"),
        _basic_password(headers.get("authorization", "")),
        *query.get("password", []),
    ]


def _basic_password(authorization: str) -> str | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except ValueError:  # not base64, or not UTF-8
        return None


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    """Stream the body; ConnectionResetError if the client disconnects before its end."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client went away before the end of its data")
        if chunk := message.get("body", b""):
            yield chunk
        if not message.get("more_body", False):
            return

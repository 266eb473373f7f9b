"""A port of ClickHouse's own, for its ordinary HTTP clients: they want a host and a port, no path.

On loopback only, whatever the front listens on.  The gateway trusts whoever reaches it, so what a
web page could send is refused: a foreign Host (DNS rebinding), an Origin, a fetch from another site
(an image or a form brings no Origin with its GET, but browsers say where it came from).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from edgesim.dev.front import Front, request_of, send_response
from edgesim.model import HttpResponse, Stream

HOST = "127.0.0.1"
_NAMES = {"127.0.0.1", "localhost", "::1"}
_OWN_SITE = {None, "none", "same-origin"}


class ClickHousePort:
    """The ASGI application."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        request = request_of(scope, Stream(_body(receive)), {})
        headers = dict(request.headers)
        refusal = _refusal(headers)
        if refusal is not None:
            text = f"{refusal}\n".encode()
            await send_response(HttpResponse(403, [("content-type", "text/plain")], text), send)
            return
        simulator = await self._front.simulator()
        try:
            answer = await simulator.clickhouse(request)
        except ConnectionResetError:
            return  # the client went away in the middle of its data, which is given up
        await send_response(answer, send)


def _refusal(headers: dict[str, str]) -> str | None:
    name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    if name not in _NAMES:
        return f"this ClickHouse does not answer to the host name {name!r}"
    if "origin" in headers or headers.get("sec-fetch-site") not in _OWN_SITE:
        return "a web page may not use this ClickHouse"
    return None


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    """The body as it comes; ConnectionResetError where the client goes away before its end."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client went away before the end of its data")
        if chunk := message.get("body", b""):
            yield chunk
        if not message.get("more_body", False):
            return

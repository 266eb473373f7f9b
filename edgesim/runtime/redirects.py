"""Redirects of ``fetch``, followed hop by hop.

Facts: https://fetch.spec.whatwg.org/#http-redirect-fetch; workerd drops fragments, and keeps
the headers of a body that is not sent again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import SplitResult, urldefrag, urljoin, urlsplit

import msgspec

from edgesim.errors import PlatformError
from edgesim.model import HttpRequest, HttpResponse, Stream

HOPS_MAX = 20
_STATUSES = {301, 302, 303, 307, 308}
_OF_AN_ORIGIN = {"authorization", "cookie", "proxy-authorization"}
"""Headers dropped if the redirect leads to another origin."""
_PORTS = {"http": 80, "https": 443}


async def follow(
    request: HttpRequest, send: Callable[[HttpRequest], Awaitable[HttpResponse]]
) -> HttpResponse:
    """Send the request and follow redirects, unless its ``redirect`` is "manual".

    Raises PlatformError after 20 redirects, and if a streamed body would have to be sent again.
    """
    url = request.url
    for _ in range(HOPS_MAX + 1):
        response = await send(request)
        redirected = None if request.redirect == "manual" else next_request(request, response)
        if redirected is None:
            if request.url != url:
                response = msgspec.structs.replace(response, url=request.url)
            return response
        if not isinstance(response.body, bytes):
            await response.body.aclose()
        request = redirected
    raise PlatformError("Too many redirects.", "TypeError")


def next_request(request: HttpRequest, response: HttpResponse) -> HttpRequest | None:
    """Return the request that a response redirects to; None if it is not a redirect.

    Raises PlatformError for a streamed body, which cannot be sent again.
    """
    location = response.header("location")
    if response.status not in _STATUSES or location is None:
        return None
    url = urldefrag(urljoin(request.url, location)).url
    method, body, headers = request.method, request.body, request.headers
    becomes_get = response.status == 303 and method not in {"GET", "HEAD"}
    if becomes_get or (response.status in {301, 302} and method == "POST"):
        method, body = "GET", b""  # the headers that describe the body stay, as in workerd
    elif isinstance(body, Stream):
        raise PlatformError("A request with a one-time-use body was redirected.", "TypeError")
    if _origin(urlsplit(url)) != _origin(urlsplit(request.url)):
        headers = [each for each in headers if each[0].lower() not in _OF_AN_ORIGIN]
    return HttpRequest(method, url, headers, body, request.cf)


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    try:
        port = parts.port
    except ValueError:
        port = None
    return parts.scheme, parts.hostname, port or _PORTS.get(parts.scheme)

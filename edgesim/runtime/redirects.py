"""A redirect as ``fetch`` follows it: the next request, hop by hop.

Facts: https://fetch.spec.whatwg.org/#http-redirect-fetch.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit

from edgesim.errors import PlatformError
from edgesim.model import HttpRequest, HttpResponse, Stream

HOPS_MAX = 20
_STATUSES = {301, 302, 303, 307, 308}
_OF_A_BODY = {"content-encoding", "content-language", "content-location", "content-type"}
_OF_AN_ORIGIN = {"authorization", "cookie", "proxy-authorization"}
"""Dropped where the redirect leads to another origin."""
_PORTS = {"http": 80, "https": 443}


def next_request(request: HttpRequest, response: HttpResponse) -> HttpRequest | None:
    """The request that a response redirects to; None if it is no redirect.

    PlatformError for a body that cannot be sent again: it was a stream.
    """
    location = response.header("location")
    if response.status not in _STATUSES or location is None:
        return None
    url = urljoin(request.url, location)
    if not urlsplit(url).fragment and (fragment := urlsplit(request.url).fragment):
        url = f"{url}#{fragment}"
    method, body, dropped = request.method, request.body, set()
    becomes_get = response.status == 303 and method not in {"GET", "HEAD"}
    if becomes_get or (response.status in {301, 302} and method == "POST"):
        method, body, dropped = "GET", b"", set(_OF_A_BODY)
    elif isinstance(body, Stream):
        raise PlatformError("A request with a one-time-use body was redirected.", "TypeError")
    if _origin(urlsplit(url)) != _origin(urlsplit(request.url)):
        dropped |= _OF_AN_ORIGIN
    headers = [each for each in request.headers if each[0].lower() not in dropped]
    return HttpRequest(method, url, headers, body, request.cf)


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    try:
        port = parts.port
    except ValueError:
        port = None
    return parts.scheme, parts.hostname, port or _PORTS.get(parts.scheme)

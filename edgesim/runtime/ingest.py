"""HTTP ingest of streams: ``POST`` an array of JSON objects, as to ``<id>.ingest.cloudflare.com``.

An endpoint is public, like a Worker's URL: browsers may use it by the stream's CORS rule, and
Workers by ``fetch``.  The error code 1003 for a body that is no array of objects was measured on
the platform; for other errors, whose codes are not documented, the code is the HTTP status.
"""

from __future__ import annotations

import hmac
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from edgesim.config.dataflow import HttpIngestConfig
from edgesim.errors import EdgesimError
from edgesim.model import Body, Headers, HttpRequest, HttpResponse, iterate
from edgesim.pipelines.pipeline import SEND_BYTES_MAX
from edgesim.pipelines.streams.growth import RowsTooLargeError
from edgesim.pipelines.streams.stream import BufferFullError, RecordStream
from edgesim.pipelines.streams.validation import BodyError
from edgesim.tracing import Tracer, current, parsed

LOCAL_ZONE = "ingest.localhost"
CLOUDFLARE_ZONE = "ingest.cloudflare.com"
PATH = "/cdn-cgi/edgesim/ingest/"
BAD_BODY = 1003
RETRY_AFTER_SECONDS = 10
PREFLIGHT_SECONDS = 86_400
_GZIP = 31  # zlib's wbits for a gzip header and trailer


class IngestError(Exception):
    """A refused request: the HTTP status, the error's code and its message."""

    def __init__(self, status: int, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = status if code is None else code


class HttpIngest:
    """The endpoints of all streams; ``token`` is demanded by streams with ``auth``."""

    def __init__(
        self,
        streams: Mapping[str, RecordStream],
        ids: Mapping[str, str],
        token: str | None,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._streams = streams
        self._ids = ids
        self._token = token

    def named_by(self, url: str) -> str | None:
        """Name of the stream that the host of an ingest URL names; None for other URLs.

        The stream may not exist.  A host of the platform is ours only if a stream has that id.
        """
        if not self._streams:
            return None
        host = (urlsplit(url).hostname or "").lower()
        name, _, zone = host.partition(".")
        if zone == LOCAL_ZONE or (zone == CLOUDFLARE_ZONE and name in self._ids):
            return self._ids.get(name, name)
        return None

    def target_of(self, url: str) -> str | None:
        """Like ``named_by``, also for the path of clients without names under ``localhost``."""
        if "ingest" not in url.lower():  # most URLs, which need not be parsed
            return None
        path = urlsplit(url).path
        if path.startswith(PATH):
            name = path.removeprefix(PATH).rstrip("/")
            return self._ids.get(name, name)
        return self.named_by(url)

    async def respond(self, name: str, request: HttpRequest) -> HttpResponse:
        """The response to a request for the stream of that name."""
        if self._tracer is None:
            return await self._respond(name, request)
        parent = current.get()
        remote = parent is None
        if parent is None:
            parent = parsed(request.header("traceparent"), request.header("tracestate"))
        attributes = {"edgesim.stream.name": name, "http.request.method": request.method}
        with self._tracer.span(
            "stream_ingest", "server", attributes, parent=parent, remote=remote
        ) as span:
            response = await self._respond(name, request)
            span.attributes["http.response.status_code"] = response.status
            return response

    async def _respond(self, name: str, request: HttpRequest) -> HttpResponse:
        stream = self._streams.get(name)
        headers: Headers = []
        try:
            if stream is None or not stream.http.enabled:
                raise IngestError(404, self._absent(name, stream))
            headers = _cors_headers(stream.http, request.header("origin"))
            if request.method == "OPTIONS":
                return HttpResponse(204, headers + _preflight_headers(request))
            committed = await self._commit(stream, request)
        except IngestError as error:
            failure = {"code": error.code, "message": str(error)}
            return _answer(error.status, {"success": False, "errors": [failure]}, headers)
        return _answer(200, {"success": True, "result": {"committed": committed}}, headers)

    def _absent(self, name: str, stream: RecordStream | None) -> str:
        if stream is not None:
            return f"HTTP ingest of stream {stream.name} is off: [streams.{stream.name}] http"
        known = ", ".join(each.name for each in self._streams.values() if each.http.enabled)
        return f"there is no stream named {name!r}; known: {known or 'none'}"

    async def _commit(self, stream: RecordStream, request: HttpRequest) -> int:
        if request.method != "POST":
            raise IngestError(405, f"{request.method} is not supported; POST an array of records")
        if stream.http.auth:
            self._authenticate(request.header("authorization"))
        body = _unpacked(await _read(request.body), request.header("content-encoding"))
        try:
            return await stream.send_json(body)
        except BodyError as error:
            raise IngestError(400, str(error), BAD_BODY) from error
        except RecursionError as error:
            raise IngestError(400, f"the body is not valid JSON: {error}", BAD_BODY) from error
        except BufferFullError as error:
            raise IngestError(429, str(error)) from error
        except RowsTooLargeError as error:
            raise IngestError(413, str(error)) from error
        except EdgesimError as error:
            raise IngestError(503, str(error)) from error

    def _authenticate(self, given: str | None) -> None:
        if self._token is None:
            problem = "this stream wants a token; start edgesim with EDGESIM_INGEST_TOKEN set"
            raise IngestError(401, problem)
        scheme, _, token = (given or "").partition(" ")
        expected = self._token.encode()
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), expected):
            raise IngestError(401, "the token is missing or wrong; send Authorization: Bearer")


async def _read(body: Body) -> bytes:
    """The body; gzip makes no body larger that was near the limit before."""
    pieces, size = [], 0
    async for piece in iterate(body):
        size += len(piece)
        if size > SEND_BYTES_MAX:
            raise _too_large()
        pieces.append(piece)
    return b"".join(pieces)


def _unpacked(body: bytes, encoding: str | None) -> bytes:
    match (encoding or "identity").strip().lower():
        case "identity":
            pass
        case "gzip":
            body = _gunzipped(body)
        case other:
            raise IngestError(415, f"content-encoding {other!r} is not supported; use gzip")
    if len(body) > SEND_BYTES_MAX:
        raise _too_large()
    return body


def _gunzipped(body: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP)
    try:
        data = unpacker.decompress(body, SEND_BYTES_MAX + 1)
    except zlib.error as error:
        raise IngestError(400, f"the body is not valid gzip: {error}", BAD_BODY) from error
    if len(data) > SEND_BYTES_MAX:
        raise _too_large()
    if not unpacker.eof or unpacker.unused_data:
        raise IngestError(400, "the body is not one complete gzip stream", BAD_BODY)
    return data


def _too_large() -> IngestError:
    return IngestError(413, f"the body is over the limit of {SEND_BYTES_MAX} bytes")


def _cors_headers(http: HttpIngestConfig, origin: str | None) -> Headers:
    """Headers that let a page of this origin read the response; none for other origins."""
    if origin is None or not {"*", origin} & set(http.cors):
        return []
    allowed = "*" if "*" in http.cors else origin
    return [("access-control-allow-origin", allowed), ("vary", "origin")]


def _preflight_headers(request: HttpRequest) -> Headers:
    wanted = request.header("access-control-request-headers") or "authorization, content-type"
    return [
        ("access-control-allow-methods", "POST, OPTIONS"),
        ("access-control-allow-headers", wanted),
        ("access-control-max-age", str(PREFLIGHT_SECONDS)),
    ]


def _answer(status: int, body: dict[str, Any], headers: Headers) -> HttpResponse:
    more = [("content-type", "application/json")]
    if status == 429:
        more.append(("retry-after", str(RETRY_AFTER_SECONDS)))
    return HttpResponse(status, [*more, *headers], msgspec.json.encode(body))

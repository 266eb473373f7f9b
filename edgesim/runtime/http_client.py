"""HTTP client of a Worker: no cookies, no proxy, own connections, addresses checked.

Each Worker has its own client, so that Workers share no cookies, connections or pool capacity.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextvars import ContextVar
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import anyio.lowlevel
import msgspec
import structlog
from aiohttp.client_proto import ResponseHandler

from edgesim.errors import PlatformError
from edgesim.model import HttpRequest, HttpResponse, Stream
from edgesim.runtime.reach import Reach, RefusedAddressError

CONNECTIONS_MAX = 128
"""Maximum open connections of one Worker, over all its invocations; further requests wait."""
INFORMATIONAL_MAX = 32
"""Maximum 1xx responses before the final one; the connection is aborted if a server sends more."""
_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
_NULL_BODY = {204, 205, 304}

log = structlog.get_logger()


class _Hop(msgspec.Struct):
    """Request for which a connection is opened; ``refused`` is the reason if it was refused."""

    host: str
    refused: str | None = None


_hop: ContextVar[_Hop] = ContextVar("hop")


class _Protocol(ResponseHandler):
    """aiohttp's protocol with a limit on 1xx responses, which it reads without end or pause."""

    _informational = 0

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Receive the head of a response."""
        if self._informational > INFORMATIONAL_MAX:
            return  # the connection is already aborted
        is_informational = 100 <= data[0].code < 200
        self._informational = self._informational + 1 if is_informational else 0
        if self._informational <= INFORMATIONAL_MAX:
            super().feed_data(data, size)
            return
        self.set_exception(aiohttp.ClientPayloadError("too many informational responses"))
        if self.transport is not None:
            self.transport.abort()


class _Connector(aiohttp.TCPConnector):
    """Connector whose connections use ``_Protocol``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        protocol: type[ResponseHandler] = _Protocol
        self._factory = partial(protocol, loop=self._loop)


class HttpClient:
    """HTTP client of one Worker; ``reach`` decides which addresses it may connect to."""

    def __init__(self, worker: str, reach: Reach) -> None:
        self._worker = worker
        self._reach = reach
        connector = _Connector(limit=CONNECTIONS_MAX, socket_factory=self._open)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
            trust_env=False,  # ignore proxy variables and .netrc
        )

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send one request without following redirects; PlatformError (AbortError) if it fails."""
        hop = _Hop(urlsplit(request.url).hostname or "")
        _hop.set(hop)
        headers = [each for each in request.headers if each[0].lower() not in _HOP_BY_HOP]
        body: Any = request.body
        if isinstance(body, Stream):
            if body.length is not None:
                headers.append(("content-length", str(body.length)))
            body = _counted(body)
        try:
            answer = await self._session.request(
                request.method,
                request.url,
                headers=headers,
                data=body or None,
                allow_redirects=False,
                skip_auto_headers=("accept", "content-type", "user-agent"),
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if hop.refused is not None:
                log.warning("fetch refused", worker=self._worker, host=hop.host, reason=hop.refused)
            why = hop.refused or error
            raise PlatformError(f"Network connection lost: {why}", "AbortError") from error
        # aiohttp uses its own string class for names, which the wire format cannot encode.
        received = [(str(name), value.strip(" \t")) for name, value in answer.headers.items()]
        if request.method == "HEAD" or answer.status in _NULL_BODY:
            answer.release()
            return HttpResponse(answer.status, received, b"", answer.reason)
        # aiohttp decompresses the body, so content-length is not the length of what is read.
        length = None if "content-encoding" in answer.headers else answer.content_length
        return HttpResponse(answer.status, received, Stream(_Chunks(answer), length), answer.reason)

    def _open(self, address: Any) -> socket.socket:
        """Create a socket for a resolved address; RefusedAddressError if it may not be reached."""
        family, kind, protocol, _, (ip, port, *_) = address
        hop = _hop.get()
        reason = self._reach.refusal(hop.host, ip, port)
        if reason is not None:
            hop.refused = f"{ip} port {port}: {reason}"
            raise RefusedAddressError(errno.EPERM, hop.refused)
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


async def _counted(body: Stream) -> AsyncIterator[bytes]:
    """The chunks of a request body; an error before its length is exceeded, or if it is shorter.

    Bytes beyond the length would be read as the next request on the connection.
    """
    left = body.length
    async for chunk in body:
        if left is not None:
            left -= len(chunk)
            if left < 0:
                raise aiohttp.ClientPayloadError("the request body is longer than its length")
        yield chunk
    if left:
        raise aiohttp.ClientPayloadError("the request body is shorter than its length")


class _Chunks:
    """Chunks of a response body as they arrive.

    Not a generator: ``aclose`` on a generator that has not started runs none of its code.
    """

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._answer.content.readany()
        except BaseException as error:
            self._answer.close()
            if isinstance(error, aiohttp.ClientError | TimeoutError | OSError):
                raise PlatformError(f"Network connection lost: {error}", "AbortError") from error
            raise
        if not chunk:
            self._answer.release()
            raise StopAsyncIteration
        # readany() returns at once while there is data, and a little data can unpack to a lot.
        await anyio.lowlevel.checkpoint()
        return chunk

    async def aclose(self) -> None:
        """Discard unread data; the connection is closed if there is any."""
        self._answer.release()

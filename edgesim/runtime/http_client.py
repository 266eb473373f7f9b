"""A Worker's HTTP client: no cookies, no proxy, connections of its own, addresses checked.

One client for each Worker, so that neither a cookie, a connection nor a free place in the pool goes
from one to another.
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
import msgspec
import structlog
from aiohttp.client_proto import ResponseHandler

from edgesim.errors import PlatformError
from edgesim.model import HttpRequest, HttpResponse, Stream, iterate
from edgesim.runtime.reach import Reach, RefusedAddressError

CONNECTIONS_MAX = 128
"""Open connections of one Worker, whichever of its invocations they are of; others wait."""
INFORMATIONAL_MAX = 32
"""Responses of status 1xx before the real one; a server that sends them without end is cut off."""
_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
_NULL_BODY = {204, 205, 304}

log = structlog.get_logger()


class _Hop(msgspec.Struct):
    """The request that a connection is opened for."""

    host: str
    refused: str | None = None


_hop: ContextVar[_Hop] = ContextVar("hop")


class _Protocol(ResponseHandler):
    """aiohttp's own, which reads informational responses in one go, without end or pause."""

    _informational = 0

    def feed_data(self, data: Any, size: int = 0) -> None:
        """A response's head has arrived."""
        if self._informational > INFORMATIONAL_MAX:
            return  # of a connection that is cut off
        is_informational = 100 <= data[0].code < 200
        self._informational = self._informational + 1 if is_informational else 0
        if self._informational <= INFORMATIONAL_MAX:
            super().feed_data(data, size)
            return
        self.set_exception(aiohttp.ClientPayloadError("too many informational responses"))
        if self.transport is not None:
            self.transport.abort()


class _Connector(aiohttp.TCPConnector):
    """Connections that speak ``_Protocol``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        protocol: type[ResponseHandler] = _Protocol
        self._factory = partial(protocol, loop=self._loop)


class HttpClient:
    """One Worker's."""

    def __init__(self, worker: str, reach: Reach) -> None:
        self._worker = worker
        self._reach = reach
        connector = _Connector(limit=CONNECTIONS_MAX, socket_factory=self._open)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
            trust_env=False,  # neither proxies of the environment nor .netrc
        )

    async def send(self, request: HttpRequest) -> HttpResponse:
        """One request, its redirect not followed; PlatformError (AbortError) if it fails."""
        hop = _Hop(urlsplit(request.url).hostname or "")
        _hop.set(hop)
        headers = [each for each in request.headers if each[0].lower() not in _HOP_BY_HOP]
        body: Any = request.body if isinstance(request.body, bytes) else iterate(request.body)
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
        # The client has a string class of its own for names, which the wire does not know.
        received = [(str(name), value.strip(" \t")) for name, value in answer.headers.items()]
        if request.method == "HEAD" or answer.status in _NULL_BODY:
            answer.release()
            return HttpResponse(answer.status, received, b"", answer.reason)
        # A packed body is unpacked on its way, to a length that nobody has said.
        length = None if "content-encoding" in answer.headers else answer.content_length
        return HttpResponse(answer.status, received, Stream(_Chunks(answer), length), answer.reason)

    def _open(self, address: Any) -> socket.socket:
        """A socket for that address, which is the one that is connected to."""
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


class _Chunks:
    """A body as it comes.  Not a generator: closing one that nobody has begun runs none of it."""

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
        return chunk

    async def aclose(self) -> None:
        """Give up the rest, and the connection where there is a rest."""
        self._answer.release()

"""The HTTP session of the S3 client.

The client's default session is insufficient: ten connections, which unread bodies use up; response
headers of at most 8 KB; retries that end within 50 ms; no timeout for a server that accepts a
request and never replies.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from io import BytesIO
from typing import IO, Any

import aiohttp
import anyio

_PAUSES = (0.1, 0.2, 0.4, 0.8)
_PASSING = frozenset({500, 502, 503, 504})
_HEADER_BYTES_MAX = 128 * 1024
_CHUNK_BYTES = 256 * 1024


class Session:
    """Retries a request a few times while the server is unreachable or replies with a 5xx status.

    No retry starts after ``timeout`` seconds, and none waits longer than that for the server to
    read or send data: a request fails within twice the timeout.
    """

    def __init__(self, timeout: float = 30) -> None:
        self._timeout = timeout
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout),
            max_field_size=_HEADER_BYTES_MAX,
            auto_decompress=False,  # return bytes as stored
            headers={"Accept-Encoding": "identity"},
        )

    async def request(
        self, method: str, url: Any, *, data: bytes | IO[bytes] | None, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """The response, whatever its status; aiohttp.ClientError if there was none."""
        give_up = anyio.current_time() + self._timeout
        for pause in _PAUSES:
            try:
                response = await self._send(method, url, data, headers)
            except aiohttp.ClientConnectionError:
                if anyio.current_time() >= give_up:
                    raise
            else:
                if response.status not in _PASSING or anyio.current_time() >= give_up:
                    return response
                response.close()
            await anyio.sleep(pause)
        return await self._send(method, url, data, headers)

    async def _send(
        self, method: str, url: Any, data: bytes | IO[bytes] | None, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        with anyio.CancelScope(deadline=anyio.current_time() + self._timeout) as scope:

            def goes_on() -> None:
                scope.deadline = anyio.current_time() + self._timeout

            body = _chunks(data, goes_on) if data else None
            return await self._session.request(method, url, data=body, headers=headers)
        raise aiohttp.ServerTimeoutError(f"no answer within {self._timeout:g} seconds")

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


async def _chunks(data: bytes | IO[bytes], goes_on: Callable[[], None]) -> AsyncIterator[bytes]:
    """Yield a body from its start, so that it can be resent; each next chunk means progress."""
    source = BytesIO(data) if isinstance(data, bytes) else data
    source.seek(0)
    while chunk := source.read(_CHUNK_BYTES):
        yield chunk
        goes_on()

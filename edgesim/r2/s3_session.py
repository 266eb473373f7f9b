"""The HTTP session that the S3 client sends with.

The client's own one has too little in it: ten connections, which unread bodies use up; answers'
headers of at most 8 KB; retries that are over within 50 ms.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import aiohttp
import anyio
from aiohttp.payload import BytesPayload

_PAUSES = (0.1, 0.2, 0.4, 0.8)
_PASSING = frozenset({500, 502, 503, 504})
_HEADER_BYTES_MAX = 128 * 1024


class Session:
    """Sends each request again, a few times, while the server is away or says that it is ill."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60),
            max_field_size=_HEADER_BYTES_MAX,
            auto_decompress=False,  # bytes as they were stored
            headers={"Accept-Encoding": "identity"},
        )

    async def request(
        self, method: str, url: Any, *, data: bytes | None, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """The answer, whatever its status; aiohttp.ClientError if there was none."""
        for pause in _PAUSES:
            try:
                response = await self._send(method, url, data, headers)
            except aiohttp.ClientConnectionError:
                pass
            else:
                if response.status not in _PASSING:
                    return response
                response.close()
            await anyio.sleep(pause)
        return await self._send(method, url, data, headers)

    async def _send(
        self, method: str, url: Any, data: bytes | None, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        return await self._session.request(method, url, data=_payload(data), headers=headers)

    async def close(self) -> None:
        """Let go of all connections."""
        await self._session.close()


def _payload(data: bytes | None) -> BytesPayload | None:
    """A body that can be sent again.

    aiohttp warns of large bytes and wants a file instead, but its older versions send only what is
    left of a file, nothing, when they repeat a request on a connection that turned out closed.
    """
    if not data:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        return BytesPayload(data)

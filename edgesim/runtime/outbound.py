"""``fetch`` to anywhere: a URL of a local Worker goes to that Worker, the rest to the network.

A Worker is local by ``<name>.<anything>.workers.dev``, by ``<name>.localhost`` and by its routes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgesim.errors import PlatformError
from edgesim.model import HttpRequest, HttpResponse, Stream, iterate
from edgesim.runtime.invocation import Fetch

if TYPE_CHECKING:
    import aiohttp

_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
_DECODED = {"content-encoding", "content-length", "transfer-encoding"}


def local_name(host: str) -> str | None:
    """The Worker that a host name means, by the naming schemes alone."""
    for suffix in (".workers.dev", ".localhost"):
        if host.endswith(suffix):
            return host.removesuffix(suffix).partition(".")[0]
    return None


class Outbound:
    """The way out; one HTTP client, opened at its first use."""

    def __init__(self, workers: Callable[[str], Fetch | None]) -> None:
        self._workers = workers
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, request: HttpRequest, depth: int) -> HttpResponse:
        """PlatformError named AbortError for a network failure, as the SDK raises it."""
        parts = urlsplit(request.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise PlatformError(f"Invalid URL: {request.url}", "TypeError")
        name = local_name(parts.hostname)
        worker = self._workers(name) if name else None
        if worker is not None:
            return await worker(request, depth)
        return await self._network(request)

    async def close(self) -> None:
        """Close the client."""
        if self._session is not None:
            await self._session.close()

    async def _network(self, request: HttpRequest) -> HttpResponse:
        import aiohttp  # slow to import, and most projects never go out

        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=True)
        headers = [
            (name, value) for name, value in request.headers if name.lower() not in _HOP_BY_HOP
        ]
        body: Any = request.body if isinstance(request.body, bytes) else iterate(request.body)
        try:
            answer = await self._session.request(
                request.method, request.url, headers=headers, data=body or None
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise PlatformError(f"Network connection lost: {error}", "AbortError") from error
        kept = [
            (name, value) for name, value in answer.headers.items() if name.lower() not in _DECODED
        ]
        return HttpResponse(answer.status, kept, Stream(_chunks(answer)))


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for chunk in answer.content.iter_any():
            yield chunk


@asynccontextmanager
async def open_outbound(workers: Callable[[str], Fetch | None]) -> AsyncIterator[Outbound]:
    """An Outbound that is closed at the end; ``workers`` finds a local Worker's fetch by name."""
    outbound = Outbound(workers)
    try:
        yield outbound
    finally:
        await outbound.close()

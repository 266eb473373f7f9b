"""``fetch`` to anywhere: a URL that leads to a local Worker goes to that Worker, the rest out.

On the platform a Worker does not reach another one of its own zone by URL (error 1042) unless it
has the compatibility flag ``global_fetch_strictly_public``, or the URL is a custom domain.  Here it
does, which is what a project that has no zones yet needs, and the log says what would happen there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog

from edgesim.config import WorkerConfig
from edgesim.errors import PlatformError
from edgesim.model import HttpRequest, HttpResponse, Stream, iterate
from edgesim.runtime.invocation import Fetch
from edgesim.runtime.routing import Router, Target

if TYPE_CHECKING:
    import aiohttp

STRICTLY_PUBLIC = "global_fetch_strictly_public"
_HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
_DECODED = {"content-encoding", "content-length", "transfer-encoding"}

log = structlog.get_logger()


class Outbound:
    """The way out; one HTTP client, opened at its first use."""

    def __init__(
        self, router: Router, worker_fetch: Callable[[str], Fetch], network: Fetch | None = None
    ) -> None:
        self._router = router
        self._worker_fetch = worker_fetch
        self._network = network or self._internet
        self._session: aiohttp.ClientSession | None = None

    def of(self, caller: WorkerConfig) -> Fetch:
        """``fetch`` as that Worker has it."""
        return partial(self.fetch, caller)

    async def fetch(self, caller: WorkerConfig, request: HttpRequest, depth: int) -> HttpResponse:
        """PlatformError named AbortError for a network failure, as the SDK raises it."""
        if not _is_web(request.url):
            raise PlatformError(f"Invalid URL: {request.url}", "TypeError")
        target = self._router.find(request.url)
        if target is None:
            return await self._network(request, depth)
        if _is_refused_there(caller, target):
            log.warning(
                "fetch of another Worker in the same zone: error 1042 on the platform; "
                "use a service binding",
                worker=caller.name,
                target=target.worker,
                or_compatibility_flag=STRICTLY_PUBLIC,
            )
        return await self._worker_fetch(target.worker)(request, depth)

    async def close(self) -> None:
        """Close the client."""
        if self._session is not None:
            await self._session.close()

    async def _internet(self, request: HttpRequest, depth: int) -> HttpResponse:
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
            (str(name), value)  # the client has a string of its own, which the wire does not know
            for name, value in answer.headers.items()
            if name.lower() not in _DECODED
        ]
        return HttpResponse(answer.status, kept, Stream(_chunks(answer)))


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for chunk in answer.content.iter_any():
            yield chunk


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # half a bracket around the host, or a port that is no number
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and port != 0


def _is_refused_there(caller: WorkerConfig, target: Target) -> bool:
    same_zone = target.zone in caller.zones and not target.custom_domain
    return same_zone and STRICTLY_PUBLIC not in caller.settings.compatibility_flags


@asynccontextmanager
async def open_outbound(
    router: Router, worker_fetch: Callable[[str], Fetch], network: Fetch | None = None
) -> AsyncIterator[Outbound]:
    """An Outbound that is closed at the end; ``worker_fetch`` gives a local Worker's fetch.

    ``network`` answers for the internet, where that is not to be asked.
    """
    outbound = Outbound(router, worker_fetch, network)
    try:
        yield outbound
    finally:
        await outbound.close()

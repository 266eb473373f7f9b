"""Outbound ``fetch``: URLs of local Workers go to those Workers, all others to the network.

On the platform a Worker cannot reach another one of its own zone by URL (error 1042) unless it has
the compatibility flag ``global_fetch_strictly_public``, or the URL is a custom domain.  Here it
can, because a project may have no zones yet; a warning names the platform's error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
import structlog

from edgesim.config import WorkerConfig
from edgesim.errors import PlatformError
from edgesim.model import Headers, HttpRequest, HttpResponse
from edgesim.runtime.ingest import HttpIngest
from edgesim.runtime.invocation import Fetch
from edgesim.runtime.lineage import Lineage, without_header
from edgesim.runtime.reach import Reach
from edgesim.runtime.redirects import follow
from edgesim.runtime.routing import Router, Target
from edgesim.tracing import current, parsed

if TYPE_CHECKING:
    from edgesim.runtime.http_client import HttpClient

STRICTLY_PUBLIC = "global_fetch_strictly_public"

log = structlog.get_logger()


class Outbound:
    """Router of outbound requests; each Worker's HTTP client is created at its first use."""

    def __init__(
        self,
        router: Router,
        worker_fetch: Callable[[str], Fetch],
        network: Fetch | None = None,
        reach: Reach | None = None,
        ingest: HttpIngest | None = None,
    ) -> None:
        self._router = router
        self._ingest = ingest
        self._worker_fetch = worker_fetch
        self._network = network
        self._reach = reach or Reach()
        self._clients: dict[str, HttpClient] = {}

    def of(self, caller: WorkerConfig) -> Fetch:
        """Return ``fetch`` bound to that Worker."""
        return partial(self.fetch, caller)

    async def fetch(
        self, caller: WorkerConfig, request: HttpRequest, lineage: Lineage
    ) -> HttpResponse:
        """Send a request and follow its redirects; each hop is checked and routed like the first.

        A network failure raises PlatformError with the name AbortError, as in the SDK.
        """

        async def send(request: HttpRequest) -> HttpResponse:
            if not _is_web(request.url):
                raise PlatformError(f"Invalid URL: {request.url}", "TypeError")
            if self._ingest is not None and (stream := self._ingest.named_by(request.url)):
                return await self._ingest.respond(stream, request)
            target = self._router.find(request.url)
            if target is not None:
                return await self._local(caller, target, request, lineage)
            if self._network is not None:
                return await self._network(request, lineage)
            return await self._internet(caller.name, request, lineage)

        return await follow(request, send)

    async def _local(
        self, caller: WorkerConfig, target: Target, request: HttpRequest, lineage: Lineage
    ) -> HttpResponse:
        if _is_refused_there(caller, target):
            log.warning(
                "fetch of another Worker in the same zone: error 1042 on the platform; "
                "use a service binding",
                worker=caller.name,
                target=target.worker,
                or_compatibility_flag=STRICTLY_PUBLIC,
            )
        return await self._worker_fetch(target.worker)(request, lineage)

    async def close(self) -> None:
        """Close the clients."""
        for client in self._clients.values():
            await client.close()

    async def _internet(self, worker: str, request: HttpRequest, lineage: Lineage) -> HttpResponse:
        from edgesim.runtime.http_client import HttpClient  # slow import, rarely needed

        if worker not in self._clients:
            self._clients[worker] = HttpClient(worker, self._reach)
        request = without_header(request)
        headers = [*traced(request.headers), lineage.header()]
        return await self._clients[worker].send(msgspec.structs.replace(request, headers=headers))


def traced(headers: Headers) -> Headers:
    """Return the headers with the current trace context, which the next server continues.

    A Worker that passes on the headers of its own request would name its client's span as the
    parent: a context of the same trace is replaced.  One of another trace is the Worker's own.
    """
    context = current.get()
    if context is None:
        return headers
    given = next((value for name, value in headers if name.lower() == "traceparent"), None)
    own = parsed(given)
    if own is not None and own.trace_id != context.trace_id:
        return headers
    kept = [each for each in headers if each[0].lower() not in {"traceparent", "tracestate"}]
    kept.append(("traceparent", context.traceparent()))
    return [*kept, ("tracestate", context.state)] if context.state else kept


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # an unbalanced bracket in the host, or a port that is not a number
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and port != 0


def _is_refused_there(caller: WorkerConfig, target: Target) -> bool:
    same_zone = target.zone in caller.zones and not target.custom_domain
    return same_zone and STRICTLY_PUBLIC not in caller.settings.compatibility_flags


@asynccontextmanager
async def open_outbound(
    router: Router,
    worker_fetch: Callable[[str], Fetch],
    network: Fetch | None = None,
    reach: Reach | None = None,
    ingest: HttpIngest | None = None,
) -> AsyncIterator[Outbound]:
    """Open an Outbound and close it at the end; ``worker_fetch`` returns a local Worker's fetch.

    ``network``, if set, replaces the internet; ``reach`` decides which addresses are allowed.
    """
    outbound = Outbound(router, worker_fetch, network, reach, ingest)
    try:
        yield outbound
    finally:
        await outbound.close()

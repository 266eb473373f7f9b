"""The S3 API as an ASGI application: below /cdn-cgi/ of the front, or on a port of its own.

ClickHouse takes the first part of any path for the bucket: it lists the bucket ``cdn-cgi`` by the
prefix ``local/r2/s3/<bucket>/...``, which ``parent`` answers.
"""

from __future__ import annotations

from collections import Counter

import structlog
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from edgesim.dev.access import Access
from edgesim.dev.edge import Edge
from edgesim.dev.front import Front, send_response
from edgesim.dev.s3_api.authorisation import Authorisation, key_pairs
from edgesim.dev.s3_api.call import S3Call, screen_headers
from edgesim.dev.s3_api.client_settings import FOLDER, PARENT, PREFIX
from edgesim.dev.s3_api.documents import error_document
from edgesim.dev.s3_api.refusals import S3ApiError, no_such_bucket, of_binding
from edgesim.dev.s3_api.request import S3Request
from edgesim.dev.s3_api.routing import CLASS_B, FREE, operation_of
from edgesim.errors import EdgesimError, PlatformError
from edgesim.model import HttpResponse

log = structlog.get_logger()


class S3Api:
    """The application; ``base`` is the path below which buckets are.

    ``edge`` is the listener's; None means the front's.
    """

    def __init__(self, front: Front, access: Access, base: str, edge: Edge | None = None) -> None:
        self._front = front
        self._access = access
        self._base = base
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        try:
            response = await self._answer(scope, receive)
        except ConnectionResetError:
            return  # the client disconnected while sending; nothing was changed
        except S3ApiError as error:
            response = _failure(error)
        except PlatformError as error:
            response = _failure(of_binding(error))
        except EdgesimError as error:
            log.error("s3 request failed", path=scope["path"], error=str(error))
            response = _failure(S3ApiError(503, "ServiceUnavailable", str(error)))
        if scope["method"] == "HEAD" and response.status >= 400:
            response.body = b""
        await send_response(response, scope, send)

    async def _answer(self, scope: Scope, receive: Receive) -> HttpResponse:
        request = self._read(scope, receive)
        simulator = await self._front.simulator()
        authorisation = Authorisation(self._access, key_pairs(simulator.project))
        now = simulator.primitives.clock.now()
        caller = authorisation.caller(request, self._edge or self._front.edge, now)
        operation = operation_of(request)
        screen_headers(request)
        response = await operation(S3Call(request, caller, simulator))
        if request.bucket and operation not in FREE:
            operations = simulator.primitives.r2_operations.setdefault(request.bucket, Counter())
            operations["class_b" if operation in CLASS_B else "class_a"] += 1
        return response

    def _read(self, scope: Scope, receive: Receive) -> S3Request:
        return S3Request(scope, receive, self._base)


class _Parent(S3Api):
    """Lists of a bucket by its path below /cdn-cgi, for ClickHouse."""

    def _read(self, scope: Scope, receive: Receive) -> S3Request:
        request = super()._read(scope, receive)
        prefix = request.parameter("prefix") or ""
        name, _, _ = prefix.removeprefix(FOLDER).partition("/")
        if not prefix.startswith(FOLDER) or not name:
            raise no_such_bucket()
        request.bucket, request.key, request.above = name, "", f"{FOLDER}{name}/"
        return request


def s3_routes(front: Front, access: Access) -> list[BaseRoute]:
    """The API at its path of the front."""
    api = S3Api(front, access, PREFIX)
    return [
        Route(PARENT, _Parent(front, access, PARENT), methods=["GET"]),
        Route(PREFIX, api),
        Mount(PREFIX, api),
    ]


def _failure(error: S3ApiError) -> HttpResponse:
    headers = [("content-type", "application/xml")]
    return HttpResponse(error.status, headers, error_document(error))

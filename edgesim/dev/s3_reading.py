"""The part of the S3 protocol that readers of Iceberg tables need: GET, HEAD and lists.

Path style, below ``/cdn-cgi/local/r2/s3/<bucket>/``, for programs that may use the admin endpoints.
Signatures are not checked; where a token is needed, it is the session token
(``x-amz-security-token``).

ClickHouse takes the first part of any path for the bucket: it lists the bucket ``cdn-cgi`` by the
prefix ``local/r2/s3/<bucket>/...``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import formatdate
from functools import partial
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from edgesim.dev.access import Access, bearer
from edgesim.dev.front import Front
from edgesim.errors import EdgesimError, PlatformError
from edgesim.model import R2Object
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.r2.options import Range
from edgesim.simulator import Simulator

PARENT = "/cdn-cgi"
FOLDER = "local/r2/s3/"
PREFIX = f"{PARENT}/{FOLDER}".rstrip("/")
SESSION_TOKEN = "x-amz-security-token"  # noqa: S105 (the name of a header)
_KEYS_MAX = 1000
_NUMBER = re.compile("[0-9]{1,18}")


class _S3Error(Exception):
    """A request that is refused: HTTP status and S3's code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def settings(request: Request) -> dict[str, str]:
    """The settings that a client needs to read files here, as Iceberg's FileIO names them."""
    found = {
        "s3.endpoint": f"{request.url.scheme}://{request.headers['host']}{PREFIX}",
        "s3.access-key-id": "edgesim",
        "s3.secret-access-key": "edgesim",
        "s3.region": "auto",
        "s3.path-style-access": "true",
        "s3.force-virtual-addressing": "false",
    }
    token = bearer(request.headers)
    return found | ({"s3.session-token": token} if token else {})


def s3_routes(front: Front, access: Access) -> list[Route]:
    """The endpoints."""

    def guarded(
        answer: Callable[[Simulator, Request], Awaitable[Response]],
    ) -> Callable[[Request], Awaitable[Response]]:
        return partial(serve, answer)

    async def serve(
        answer: Callable[[Simulator, Request], Awaitable[Response]], request: Request
    ) -> Response:
        try:
            if not access.is_admin(request.headers.get(SESSION_TOKEN)):
                refusal = access.refusal(request.scope, front.edge)
                if refusal is not None:
                    raise _S3Error(403, "AccessDenied", refusal)
            return await answer(await front.simulator(), request)
        except _S3Error as error:
            return _failure(error, request)
        except PlatformError as error:
            return _failure(_S3Error(400, "InvalidRequest", str(error)), request)
        except EdgesimError as error:
            return _failure(_S3Error(503, "ServiceUnavailable", str(error)), request)

    methods = ["GET", "HEAD", "PUT", "POST", "DELETE"]
    return [
        Route(f"{PREFIX}/{{bucket}}", guarded(_answer), methods=methods),
        Route(f"{PREFIX}/{{bucket}}/{{key:path}}", guarded(_answer), methods=methods),
        Route(PARENT, guarded(_list_of_parent), methods=["GET"]),
    ]


async def _answer(simulator: Simulator, request: Request) -> Response:
    bucket = _bucket(simulator, request.path_params["bucket"])
    match request.method:
        case "GET":
            return await _get(bucket, request)
        case "HEAD":
            return await _head(bucket, request)
    problem = "only reading is supported here; write by a Worker or `edgesim r2 put`"
    raise _S3Error(501, "NotImplemented", problem)


async def _list_of_parent(simulator: Simulator, request: Request) -> Response:
    prefix = request.query_params.get("prefix", "")
    name, _, rest = prefix.removeprefix(FOLDER).partition("/")
    if not prefix.startswith(FOLDER) or not name:
        raise _S3Error(404, "NoSuchBucket", f"buckets are below {PREFIX}/")
    return await _list(_bucket(simulator, name), request, rest, f"{FOLDER}{name}/")


async def _get(bucket: Bucket, request: Request) -> Response:
    key = request.path_params.get("key", "")
    if not key:
        return await _list(bucket, request, request.query_params.get("prefix", ""))
    asked = request.headers.get("range")
    wanted = _range(asked) if asked else None
    if wanted is not None:
        found = await bucket.head(key)
        if found is not None and (wanted.offset or 0) >= max(found.size, 1):
            raise _S3Error(416, "InvalidRange", f"{key} has {found.size} bytes")
    read = await bucket.get(key, range=wanted)
    if not isinstance(read, R2ObjectBody):
        raise _no_such_key(key)
    headers = _headers(read.object)
    start, length = read.range.offset or 0, read.range.length or 0
    headers["content-length"] = str(length)
    if wanted is not None:
        headers["content-range"] = f"bytes {start}-{start + length - 1}/{read.object.size}"
    return StreamingResponse(aiter(read.body), 206 if wanted else 200, headers)


async def _head(bucket: Bucket, request: Request) -> Response:
    key = request.path_params.get("key", "")
    if not key:
        return Response(status_code=200)
    found = await bucket.head(key)
    if found is None:
        raise _no_such_key(key)
    return Response(headers=_headers(found) | {"content-length": str(found.size)})


async def _list(bucket: Bucket, request: Request, prefix: str, above: str = "") -> Response:
    """Objects of the bucket with that prefix; ``above`` is put before each key."""
    query = request.query_params
    most = query.get("max-keys", str(_KEYS_MAX))
    if not _NUMBER.fullmatch(most):
        raise _S3Error(400, "InvalidArgument", "max-keys is not a number")
    found = await bucket.list(
        prefix=prefix,
        limit=min(max(int(most), 1), _KEYS_MAX),
        cursor=query.get("continuation-token"),
        delimiter=query.get("delimiter"),
        start_after=query.get("start-after", "").removeprefix(above),
    )
    entries = [
        f"<Contents><Key>{escape(above + each.key)}</Key><LastModified>{_iso(each)}</LastModified>"
        f'<ETag>"{each.etag}"</ETag><Size>{each.size}</Size>'
        "<StorageClass>STANDARD</StorageClass></Contents>"
        for each in found.objects
    ]
    entries += [
        f"<CommonPrefixes><Prefix>{escape(above + each)}</Prefix></CommonPrefixes>"
        for each in found.delimited_prefixes
    ]
    more = (
        f"<NextContinuationToken>{escape(found.cursor)}</NextContinuationToken>"
        if found.cursor
        else ""
    )
    return _xml(
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{escape(bucket.name)}</Name><Prefix>{escape(above + prefix)}</Prefix>"
        f"<KeyCount>{len(entries)}</KeyCount><MaxKeys>{most}</MaxKeys>"
        f"<IsTruncated>{str(found.truncated).lower()}</IsTruncated>{more}"
        f"{''.join(entries)}</ListBucketResult>"
    )


def _bucket(simulator: Simulator, name: str) -> Bucket:
    if name not in simulator.primitives.bucket_names():
        raise _S3Error(404, "NoSuchBucket", f"there is no bucket named {name!r}")
    return simulator.primitives.bucket(name)


def _range(header: str) -> Range:
    unit, _, span = header.partition("=")
    first, dash, last = span.strip().partition("-")
    numbers = [each for each in (first, last) if each]
    if unit != "bytes" or not dash or not numbers or not all(map(_NUMBER.fullmatch, numbers)):
        raise _S3Error(400, "InvalidArgument", f"not a range of bytes: {header}")
    if not first:
        return Range(suffix=int(last))
    return Range(int(first), int(last) - int(first) + 1 if last else None)


def _headers(found: R2Object) -> dict[str, str]:
    return {
        "etag": f'"{found.etag}"',
        "last-modified": formatdate(found.uploaded / 1000, usegmt=True),
        "accept-ranges": "bytes",
        "content-type": found.http_metadata.content_type or "application/octet-stream",
    }


def _iso(found: R2Object) -> str:
    uploaded = datetime.fromtimestamp(found.uploaded / 1000, UTC)
    return uploaded.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _no_such_key(key: str) -> _S3Error:
    return _S3Error(404, "NoSuchKey", f"there is no object {key!r}")


def _failure(error: _S3Error, request: Request) -> Response:
    if request.method == "HEAD":
        return Response(status_code=error.status)
    text = f"<Error><Code>{error.code}</Code><Message>{escape(str(error))}</Message></Error>"
    return _xml(text, error.status)


def _xml(text: str, status: int = 200) -> Response:
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return Response(head + text, status, media_type="application/xml")

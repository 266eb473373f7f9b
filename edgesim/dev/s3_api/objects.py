"""Operations on one object: get, head, put, copy, delete."""

from __future__ import annotations

import re
from functools import partial
from urllib.parse import unquote_to_bytes

import msgspec

from edgesim.dev.s3_api import metadata
from edgesim.dev.s3_api.call import S3Call, iso_time, xml_response
from edgesim.dev.s3_api.refusals import (
    S3ApiError,
    invalid_argument,
    no_such_key,
    not_implemented,
    precondition_failed,
)
from edgesim.dev.s3_api.request import S3Request
from edgesim.model import Headers, HttpMetadata, HttpResponse, R2Object
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.r2.options import Range

COPY_SOURCE = "x-amz-copy-source"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_OVERRIDES = ("type", "language", "disposition", "encoding")


async def get_object(call: S3Call) -> HttpResponse:
    """The object's bytes, or a range of them."""
    request, bucket = call.request, call.bucket
    given = request.header("range")
    wanted = read_range(given) if given else None
    condition = metadata.conditional(request)
    if wanted is not None or _part_of(request) is not None:
        await _check_extent(bucket, request, wanted)
    found = await bucket.get(request.key, range=wanted, only_if=condition)
    if found is None:
        raise no_such_key()
    if not isinstance(found, R2ObjectBody):
        return _not_served(request, found)
    headers = _headers(request, found.object)
    if wanted is None:
        headers += metadata.checksum_headers(request, found.object)
        return HttpResponse(200, headers, found.body, encoded=True)
    start, length = found.range.offset or 0, found.range.length or 0
    headers.append(("content-range", f"bytes {start}-{start + length - 1}/{found.object.size}"))
    return HttpResponse(206, headers, found.body, encoded=True)


async def head_object(call: S3Call) -> HttpResponse:
    """The object's metadata; a range has no effect."""
    request, bucket = call.request, call.bucket
    condition = metadata.conditional(request)
    found = await bucket.head(request.key)
    if found is None:
        raise no_such_key()
    if condition is not None and not condition.holds(found):
        return _not_served(request, found)
    if _part_of(request) is not None:
        await _check_extent(bucket, request, None)
    headers = _headers(request, found) + metadata.checksum_headers(request, found)
    headers.append(("content-length", str(found.size)))
    return HttpResponse(200, headers, encoded=True)


def _not_served(request: S3Request, found: R2Object) -> HttpResponse:
    condition = metadata.conditional(request)
    if condition is None or not metadata.is_unmodified(condition, found):
        raise precondition_failed()
    return HttpResponse(304, metadata.object_headers(found), encoded=True)


def _headers(request: S3Request, found: R2Object) -> Headers:
    """The object's headers, with those that the query overrides."""
    headers = dict(metadata.object_headers(found))
    names = {f"response-content-{each}": f"content-{each}" for each in _OVERRIDES}
    names |= {"response-cache-control": "cache-control", "response-expires": "expires"}
    for parameter, name in names.items():
        value = request.parameter(parameter)
        if value is not None:
            if not value.isprintable():
                raise invalid_argument(f"{parameter} is no value of a header")
            headers[name] = value
    return list(headers.items())


def read_range(header: str) -> Range:
    """A Range header; S3ApiError if it is not one range of bytes."""
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        raise invalid_argument(
            "range must be in format 'bytes=start-end', 'bytes=start-' or 'bytes=-suffix'.'"
        )
    first, last = match.groups()
    if not first:
        return Range(suffix=int(last))
    if last and int(last) < int(first):
        raise invalid_argument("range must be positive.")
    return Range(int(first), int(last) - int(first) + 1 if last else None)


def _part_of(request: S3Request) -> str | None:
    return request.parameter("partNumber")


async def _check_extent(bucket: Bucket, request: S3Request, wanted: Range | None) -> None:
    """Refuse a range or part that the object does not have."""
    found = await bucket.head(request.key)
    if found is None:
        raise no_such_key()
    part = _part_of(request)
    if part is not None and "-" in found.etag:
        raise not_implemented("partNumber of an object that was uploaded in parts")
    beyond = wanted is not None and (wanted.offset or 0) >= found.size
    if beyond or part not in {None, "1"} or (wanted is not None and wanted.suffix == 0):
        raise S3ApiError(416, "InvalidRange", "The requested range is not satisfiable")


async def put_object(call: S3Call) -> HttpResponse:
    """Store the body as an object."""
    request, bucket = call.request, call.bucket
    payload = call.payload()
    payload.needs_length()
    stored = await bucket.put(
        request.key,
        payload.stream(),
        http_metadata=metadata.http_metadata(request),
        custom_metadata=metadata.custom_metadata(request),
        checksums=payload.stored(),
        only_if=metadata.conditional(request),
        storage_class=call.storage_class() or "Standard",
    )
    if stored is None:
        raise precondition_failed()
    return HttpResponse(200, [("etag", f'"{stored.etag}"'), *payload.shown().items()])


async def copy_object(call: S3Call) -> HttpResponse:
    """Copy another object of a bucket that the caller may use."""
    request, bucket = call.request, call.bucket
    directive = request.header("x-amz-metadata-directive") or "COPY"
    if directive not in {"COPY", "REPLACE", "MERGE"}:
        raise invalid_argument(f"metadata directive {directive}.")
    source, source_key = copy_source(call)
    stored = await bucket.copy(
        source,
        source_key,
        request.key,
        source_only_if=metadata.conditional(request, f"{COPY_SOURCE}-"),
        only_if=metadata.conditional(request, "cf-copy-destination-"),
        changed=partial(_changed, call, directive),
    )
    if stored is None:
        raise no_such_key()
    return xml_response(
        "CopyObjectResult",
        {"ETag": f'"{stored.etag}"', "LastModified": iso_time(stored.uploaded)},
    )


def _changed(call: S3Call, directive: str, source: R2Object) -> R2Object:
    """The copy's metadata."""
    replace = msgspec.structs.replace
    storage_class = call.storage_class() or "Standard"
    if directive == "COPY":
        return replace(source, storage_class=storage_class)
    http = metadata.http_metadata(call.request)
    custom = metadata.custom_metadata(call.request)
    if directive == "MERGE":
        given = {name: each for name, each in msgspec.structs.asdict(http).items() if each}
        http = HttpMetadata(**(msgspec.structs.asdict(source.http_metadata) | given))
        custom = source.custom_metadata | custom
    return replace(source, http_metadata=http, custom_metadata=custom, storage_class=storage_class)


def copy_source(call: S3Call) -> tuple[Bucket, str]:
    """Bucket and key of the object to copy from."""
    given, _, version = (call.request.header(COPY_SOURCE) or "").partition("?")
    if version:
        raise not_implemented(f"copy source with {version.partition('=')[0]}")
    try:
        place = unquote_to_bytes(given).decode().removeprefix("/")
    except UnicodeDecodeError:
        raise invalid_argument("copy source is not UTF-8") from None
    name, _, key = place.partition("/")
    if not name or not key:
        raise invalid_argument("copy source bucket name")
    return call.bucket_named(name), key


async def delete_object(call: S3Call) -> HttpResponse:
    """Remove the object, if it exists."""
    await call.bucket.delete(call.request.key)
    return HttpResponse(204)

"""Lists of a bucket's objects, in both versions."""

from __future__ import annotations

import re

from edgesim.dev.s3_api.call import S3Call, iso_time, storage_class_header, xml_response
from edgesim.dev.s3_api.refusals import S3ApiError, invalid_argument, not_implemented
from edgesim.dev.s3_api.request import S3Request
from edgesim.dev.s3_api.signature import encode
from edgesim.model import HttpResponse
from edgesim.r2.limits import KEYS_MAX
from edgesim.r2.listing import Listing, cursor_after_prefix

OWNER = {"ID": "edgesim", "DisplayName": "edgesim"}
_NUMBER = re.compile("[0-9]{1,9}")
_V1 = {"prefix", "delimiter", "marker", "max-keys", "encoding-type"}
_V2 = {
    *("list-type", "prefix", "delimiter", "continuation-token", "start-after", "max-keys"),
    *("encoding-type", "fetch-owner"),
}
_OF_EVERY_REQUEST = re.compile("X-Amz-.*|x-id")


async def list_objects(call: S3Call) -> HttpResponse:
    """ListObjects and ListObjectsV2."""
    request = call.request
    version = request.parameter("list-type") or "1"
    if version not in {"1", "2"}:
        raise not_implemented(f"ListObjectsV{version}")
    is_v2 = version == "2"
    _check_parameters(request, is_v2=is_v2)
    wanted = max_keys(request)
    prefix = (request.parameter("prefix") or "").removeprefix(request.above)
    delimiter = request.parameter("delimiter") or None
    token = request.parameter("continuation-token") if is_v2 else None
    after = request.parameter("start-after" if is_v2 else "marker") or ""
    start = after.removeprefix(request.above)
    if not is_v2 and delimiter and _is_folded(start, prefix, delimiter):
        token = cursor_after_prefix(start)  # the next page does not repeat the prefix
    found = await call.bucket.list(
        prefix=prefix,
        limit=min(max(wanted, 1), KEYS_MAX),
        cursor=token or None,
        delimiter=delimiter,
        start_after=start,
    )
    if wanted == 0:
        more = bool(found.objects or found.delimited_prefixes)
        found = Listing([], more, None, [])
    return _document(request, found, wanted, is_v2=is_v2)


def _is_folded(marker: str, prefix: str, delimiter: str) -> bool:
    """True if a marker is a delimited prefix, with which the previous page ended."""
    end = marker.find(delimiter, len(prefix)) if marker.startswith(prefix) else -1
    return end >= 0 and end + len(delimiter) == len(marker)


def _check_parameters(request: S3Request, *, is_v2: bool) -> None:
    if not is_v2 and request.has("continuation-token"):
        raise invalid_argument("continuation-token not supported in ListObjects")
    for name, _ in request.query:
        if name not in (_V2 if is_v2 else _V1) and not _OF_EVERY_REQUEST.fullmatch(name):
            raise not_implemented(f"ListObjectsV{2 if is_v2 else 1} search parameter {name}")
    encoding = request.parameter("encoding-type")
    if encoding not in {None, "url"}:
        raise not_implemented(f'Unrecognized encoding-type "{encoding}"')


def max_keys(request: S3Request) -> int:
    """The number of entries that the client asks for."""
    given = request.parameter("max-keys")
    if given is None:
        return KEYS_MAX
    if not _NUMBER.fullmatch(given):
        text = "MaxKeys params must be positive integer <= 1000."
        raise S3ApiError(400, "InvalidMaxKeys", text)
    return int(given)


def _document(request: S3Request, found: Listing, wanted: int, *, is_v2: bool) -> HttpResponse:
    encoding = request.parameter("encoding-type")

    def shown(text: str) -> str:
        return encode(text, "/") if encoding else text

    above = request.above
    entries = [
        {
            "Key": shown(above + each.key),
            "LastModified": iso_time(each.uploaded),
            "ETag": f'"{each.etag}"',
            "Size": each.size,
            "StorageClass": storage_class_header(each.storage_class),
            "Owner": OWNER if request.parameter("fetch-owner") == "true" else None,
        }
        for each in found.objects
    ]
    prefixes = [{"Prefix": shown(above + each)} for each in found.delimited_prefixes]
    content: dict[str, object] = {
        "Name": request.bucket,
        "Prefix": shown(request.parameter("prefix") or ""),
        "MaxKeys": wanted,
        "IsTruncated": found.truncated,
        "EncodingType": encoding,
    }
    if delimiter := request.parameter("delimiter"):
        content["Delimiter"] = shown(delimiter)
    if is_v2:
        start = request.parameter("start-after")
        content |= {
            "KeyCount": len(entries) + len(prefixes),
            "StartAfter": None if start is None else shown(start),
            "ContinuationToken": request.parameter("continuation-token"),
            "NextContinuationToken": found.cursor,
        }
    else:
        last = max(
            [each.key for each in found.objects[-1:]] + found.delimited_prefixes[-1:], default=""
        )
        marker = shown(above + last) if found.truncated and last else None
        content |= {"Marker": shown(request.parameter("marker") or ""), "NextMarker": marker}
    return xml_response(
        "ListBucketResult", content | {"Contents": entries, "CommonPrefixes": prefixes}
    )

"""Converts options in JavaScript's shape, as Worker code passes them, to arguments of Bucket.

Names are camelCase, numbers may be floats, dates are datetimes (naive: UTC) or milliseconds, and a
``Headers`` object arrives as pairs.  Options that the platform ignores are ignored here, values
that it converts are converted, and what it refuses raises PlatformError with its message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from edgesim.errors import PlatformError
from edgesim.model import Body, HttpMetadata, Stream
from edgesim.r2 import header_options
from edgesim.r2.options import ALGORITHMS, Conditional, Range
from edgesim.runtime.r2_values import (
    date,
    given_fields,
    number,
    optional_string,
    optional_text,
    pairs,
    text,
    wrong,
)

Options = Mapping[str, Any] | None


class GetArguments(TypedDict):
    """Keyword arguments of ``Bucket.get``."""

    range: Range | None
    only_if: Conditional | None


class PutArguments(TypedDict):
    """Keyword arguments of ``Bucket.put``."""

    http_metadata: HttpMetadata
    custom_metadata: dict[str, str]
    checksums: dict[str, str | bytes]
    only_if: Conditional | None
    storage_class: str


class MultipartArguments(TypedDict):
    """Keyword arguments of ``Bucket.create_multipart_upload``."""

    http_metadata: HttpMetadata
    custom_metadata: dict[str, str]
    storage_class: str


class ListArguments(TypedDict):
    """Keyword arguments of ``Bucket.list``."""

    prefix: str
    limit: int
    cursor: str | None
    delimiter: str | None
    start_after: str | None
    include: Sequence[str]


def get_arguments(options: Options) -> GetArguments:
    """The second argument of ``BUCKET.get``."""
    given = _given(options, "R2GetOptions")
    return {"range": _range(given.get("range")), "only_if": _conditional(given.get("onlyIf"))}


def put_arguments(options: Options) -> PutArguments:
    """The third argument of ``BUCKET.put``."""
    given = _given(options, "R2PutOptions")
    return {
        **_metadata(given),
        "checksums": {name: _checksum(name, given[name]) for name in ALGORITHMS if name in given},
        "only_if": _conditional(given.get("onlyIf")),
    }


def multipart_arguments(options: Options) -> MultipartArguments:
    """The second argument of ``BUCKET.createMultipartUpload``."""
    return _metadata(_given(options, "R2MultipartOptions"))


def part_options(options: Options) -> None:
    """The third argument of ``uploadPart``: validated, but no option has an effect here."""
    _given(options, "R2UploadPartOptions")


def _given(options: Options, struct: str) -> dict[str, Any]:
    given = given_fields(options, struct)
    if "ssecKey" in given:
        # Storing the bytes unencrypted without an error would be worse.
        raise PlatformError("edgesim does not encrypt objects: leave out ssecKey here")
    return given


def _metadata(given: Mapping[str, Any]) -> MultipartArguments:
    custom = given_fields(given.get("customMetadata"), "customMetadata")
    return {
        "http_metadata": _http_metadata(given.get("httpMetadata")),
        "custom_metadata": {text(name): text(value) for name, value in custom.items()},
        "storage_class": text(given.get("storageClass", "Standard")),
    }


def list_arguments(options: Options) -> ListArguments:
    """The argument of ``BUCKET.list``."""
    given = given_fields(options, "R2ListOptions")
    include = given.get("include", [])
    if isinstance(include, str) or not isinstance(include, Sequence):
        raise wrong("include", "R2ListOptions", "Array")
    return {
        "prefix": _listed(given, "prefix") or "",
        "limit": int(number(given.get("limit", 1000), "limit", "R2ListOptions")),
        "cursor": _listed(given, "cursor"),
        "delimiter": _listed(given, "delimiter"),
        "start_after": _listed(given, "startAfter"),
        "include": [text(field) for field in include],
    }


def _listed(given: Mapping[str, Any], field: str) -> str | None:
    return optional_string(given.get(field), field, "R2ListOptions")


def keys_of(value: Any) -> str | list[str]:
    """The argument of ``BUCKET.delete``: a key, or a list of keys."""
    return [text(key) for key in value] if isinstance(value, list) else text(value)


def parts_of(value: Any) -> list[tuple[int, str]]:
    """The argument of ``complete``: (partNumber, etag) of each part."""
    if not isinstance(value, list):
        raise PlatformError(
            "Failed to execute 'complete' on 'R2MultipartUpload': parameter 1 is not of type "
            "'Array'.",
            "TypeError",
        )
    parts = []
    for each in value:
        part = given_fields(each, "R2UploadedPart")
        if "etag" not in part:
            raise wrong("etag", "R2UploadedPart", "string")
        parts.append((part_number(part.get("partNumber")), text(part["etag"])))
    return parts


def part_number(value: Any) -> int:
    """The part number, truncated to an integer as the platform does."""
    return int(number(value, "partNumber", "R2UploadedPart"))


def body_of(value: object, method: str = "put", owner: str = "R2Bucket") -> Body:
    """The body for ``put`` and ``uploadPart``: text, bytes, None, or a stream of known length."""
    if value is None:
        return b""
    if isinstance(value, str):
        return text(value).encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, Stream):
        raise PlatformError(
            f"Failed to execute '{method}' on '{owner}': parameter 2 is not of type "
            "'ReadableStream or ArrayBuffer or ArrayBufferView or string or Blob'.",
            "TypeError",
        )
    if value.length is None:
        raise PlatformError(
            "Provided readable stream must have a known length (request/response body or readable "
            "half of FixedLengthStream)",
            "TypeError",
        )
    return value


def _range(value: Any) -> Range | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return header_options.range_of(pairs(value, "range", "R2GetOptions"))
    given = given_fields(value, "R2Range")
    if "suffix" in given:
        for other in ("offset", "length"):
            if other in given:
                raise PlatformError(f"Suffix is incompatible with {other}.", "TypeError")
        return Range(suffix=_whole(given, "suffix", "Suffix"))
    return Range(
        offset=_whole(given, "offset", "Starting offset"),
        length=_whole(given, "length", "Length"),
    )


def _whole(given: Mapping[str, Any], field: str, name: str) -> int | None:
    if field not in given:
        return None
    count = number(given[field], field, "R2Range")
    if count < 0:
        subject = "suffix" if field == "suffix" else "range"
        raise PlatformError(
            f"Invalid {subject}. {name} ({count:g}) must be greater than or equal to 0.",
            "RangeError",
        )
    if count != int(count):
        raise PlatformError(
            f"Invalid range. {name} ({count:g}) must be an integer, not floating point.",
            "RangeError",
        )
    return int(count)


def _conditional(value: Any) -> Conditional | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return header_options.conditional_of(pairs(value, "onlyIf", "R2GetOptions"))
    given = given_fields(value, "R2Conditional")
    return Conditional(
        etag_matches=_etag(given.get("etagMatches"), "etagMatches"),
        etag_does_not_match=_etag(given.get("etagDoesNotMatch"), "etagDoesNotMatch"),
        uploaded_before=date(given.get("uploadedBefore"), "uploadedBefore", "R2Conditional"),
        uploaded_after=date(given.get("uploadedAfter"), "uploadedAfter", "R2Conditional"),
        seconds_granularity=bool(given.get("secondsGranularity", False)),
    )


def _etag(value: Any, field: str) -> tuple[str, ...] | None:
    etag = optional_string(value, field, "R2Conditional")
    if etag is None:
        return None
    if etag.startswith('"') and etag.endswith('"'):
        raise PlatformError(
            f"Conditional ETag should not be wrapped in quotes ({etag}).", "TypeError"
        )
    return (etag,)


def _http_metadata(value: Any) -> HttpMetadata:
    if value is None:
        return HttpMetadata()
    if not isinstance(value, Mapping):
        return header_options.http_metadata_of(pairs(value, "httpMetadata", "R2PutOptions"))
    given = given_fields(value, "R2HTTPMetadata")
    return HttpMetadata(
        content_type=optional_text(given.get("contentType")),
        content_language=optional_text(given.get("contentLanguage")),
        content_disposition=optional_text(given.get("contentDisposition")),
        content_encoding=optional_text(given.get("contentEncoding")),
        cache_control=optional_text(given.get("cacheControl")),
        cache_expiry=date(given.get("cacheExpiry"), "cacheExpiry", "R2HTTPMetadata"),
    )


def _checksum(name: str, value: Any) -> str | bytes:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise wrong(name, "R2PutOptions", "ArrayBuffer or ArrayBufferView or string")

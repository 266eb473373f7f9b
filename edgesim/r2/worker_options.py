"""From the options that Worker code passes, in JavaScript's shape, to the arguments of Bucket.

Names are camelCase, numbers may be floats, dates are datetimes (naive: UTC) or milliseconds, and
where the platform takes a ``Headers`` object it arrives as pairs.  What the platform ignores is
ignored here, what it converts is converted, and what it refuses raises PlatformError in its words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypedDict

from edgesim.errors import PlatformError
from edgesim.model import Body, HttpMetadata, Stream
from edgesim.r2 import header_options
from edgesim.r2.options import ALGORITHMS, Conditional, Range

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
    custom = _given(given.get("customMetadata"), "customMetadata")
    return {
        "http_metadata": _http_metadata(given.get("httpMetadata")),
        "custom_metadata": {name: _text(value) for name, value in custom.items()},
        "checksums": {name: _checksum(name, given[name]) for name in ALGORITHMS if name in given},
        "only_if": _conditional(given.get("onlyIf")),
        "storage_class": _text(given.get("storageClass", "Standard")),
    }


def list_arguments(options: Options) -> ListArguments:
    """The argument of ``BUCKET.list``."""
    given = _given(options, "R2ListOptions")
    include = given.get("include", [])
    if isinstance(include, str) or not isinstance(include, Sequence):
        raise _wrong("include", "R2ListOptions", "Array")
    return {
        "prefix": _text(given.get("prefix", "")),
        "limit": int(_number(given.get("limit", 1000), "limit", "R2ListOptions")),
        "cursor": _optional_text(given.get("cursor")),
        "delimiter": _optional_text(given.get("delimiter")),
        "start_after": _optional_text(given.get("startAfter")),
        "include": [_text(field) for field in include],
    }


def put_body(value: object) -> Body:
    """The second argument of ``BUCKET.put``: text, bytes, nothing, or a stream of known length."""
    if value is None:
        return b""
    if isinstance(value, str):
        return _text(value).encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, Stream):
        raise PlatformError(
            "Failed to execute 'put' on 'R2Bucket': parameter 2 is not of type 'ReadableStream or "
            "ArrayBuffer or ArrayBufferView or string or Blob'.",
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
        return header_options.range_of(_pairs(value, "range", "R2GetOptions"))
    given = _given(value, "R2Range")
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
    number = _number(given[field], field, "R2Range")
    if number < 0:
        subject = "suffix" if field == "suffix" else "range"
        raise PlatformError(
            f"Invalid {subject}. {name} ({number:g}) must be greater than or equal to 0.",
            "RangeError",
        )
    if number != int(number):
        raise PlatformError(
            f"Invalid range. {name} ({number:g}) must be an integer, not floating point.",
            "RangeError",
        )
    return int(number)


def _conditional(value: Any) -> Conditional | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return header_options.conditional_of(_pairs(value, "onlyIf", "R2GetOptions"))
    given = _given(value, "R2Conditional")
    return Conditional(
        etag_matches=_etag(given.get("etagMatches")),
        etag_does_not_match=_etag(given.get("etagDoesNotMatch")),
        uploaded_before=_date(given.get("uploadedBefore"), "uploadedBefore", "R2Conditional"),
        uploaded_after=_date(given.get("uploadedAfter"), "uploadedAfter", "R2Conditional"),
        seconds_granularity=bool(given.get("secondsGranularity", False)),
    )


def _etag(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    etag = _text(value)
    if etag.startswith('"') and etag.endswith('"'):
        raise PlatformError(
            f"Conditional ETag should not be wrapped in quotes ({etag}).", "TypeError"
        )
    return (etag,)


def _http_metadata(value: Any) -> HttpMetadata:
    if value is None:
        return HttpMetadata()
    if not isinstance(value, Mapping):
        return header_options.http_metadata_of(_pairs(value, "httpMetadata", "R2PutOptions"))
    given = _given(value, "R2HTTPMetadata")
    return HttpMetadata(
        content_type=_optional_text(given.get("contentType")),
        content_language=_optional_text(given.get("contentLanguage")),
        content_disposition=_optional_text(given.get("contentDisposition")),
        content_encoding=_optional_text(given.get("contentEncoding")),
        cache_control=_optional_text(given.get("cacheControl")),
        cache_expiry=_date(given.get("cacheExpiry"), "cacheExpiry", "R2HTTPMetadata"),
    )


def _checksum(name: str, value: Any) -> str | bytes:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise _wrong(name, "R2PutOptions", "ArrayBuffer or ArrayBufferView or string")


def _given(value: Any, struct: str) -> dict[str, Any]:
    """The fields that are there; undefined and null arrive alike and mean the default."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise PlatformError(f"The provided value is not of type '{struct}'.", "TypeError")
    return {name: field for name, field in value.items() if field is not None}


def _pairs(value: Any, field: str, struct: str) -> list[tuple[str, str]]:
    try:
        return [(str(name).lower(), str(text)) for name, text in value]
    except (TypeError, ValueError):
        raise _wrong(field, struct, "Object or Headers") from None


def _number(value: Any, field: str, struct: str) -> float:
    if isinstance(value, int | float) and abs(value) < float("inf"):
        return value
    raise _wrong(field, struct, "number")


def _date(value: Any, field: str, struct: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.timestamp() * 1000
    if isinstance(value, int | float) and abs(value) < float("inf"):
        return value
    raise _wrong(field, struct, "date")


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _text(value: Any) -> str:
    """JavaScript's String(): what the platform makes of a value where it wants text."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    return "[object Object]"


def _wrong(field: str, struct: str, kind: str) -> PlatformError:
    return PlatformError(
        f"Incorrect type for the '{field}' field on '{struct}': the provided value is not of type "
        f"'{kind}'.",
        "TypeError",
    )

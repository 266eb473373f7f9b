"""R2 options passed as HTTP headers: ``get(key, {range: request.headers})``.

All functions take (name, value) pairs with names in lower case.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

from edgesim.errors import PlatformError
from edgesim.model import Headers, HttpMetadata
from edgesim.r2.options import Conditional, Range

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE | re.ASCII)
_ETAG = re.compile(r'(W/)?"([^"]*)"')
_ENCOUNTERED = {
    "*": "Encountered a wildcard character '*' instead.",
    "W": "Encountered a weak quotation character 'W' instead. "
    "This would otherwise indicate the start of a new weak etag.",
    '"': "Encountered a double quote character '\"' instead. "
    "This would otherwise indicate the start of a new strong etag.",
}


def range_of(headers: Headers) -> Range | None:
    """The Range header; None (the whole object) if absent, malformed or of several ranges."""
    match = _RANGE.fullmatch(_joined(headers, "range") or "")
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        return Range(suffix=int(last)) if last else None
    if not last:
        return Range(offset=int(first))
    if int(last) < int(first):
        return None
    return Range(offset=int(first), length=int(last) - int(first) + 1)


def conditional_of(headers: Headers) -> Conditional:
    """If-Match, If-None-Match, If-Modified-Since and If-Unmodified-Since, to the second."""
    return Conditional(
        etag_matches=_etags(headers, "if-match", weak=False),
        etag_does_not_match=_etags(headers, "if-none-match", weak=True),
        uploaded_before=_date(_joined(headers, "if-unmodified-since")),
        uploaded_after=_date(_joined(headers, "if-modified-since")),
        seconds_granularity=True,
    )


def http_metadata_of(headers: Headers) -> HttpMetadata:
    """The request headers that R2 stores as HTTP metadata."""
    return HttpMetadata(
        content_type=_joined(headers, "content-type"),
        content_language=_joined(headers, "content-language"),
        content_disposition=_joined(headers, "content-disposition"),
        content_encoding=_joined(headers, "content-encoding"),
        cache_control=_joined(headers, "cache-control"),
        cache_expiry=_date(_joined(headers, "expires")),
    )


def _joined(headers: Headers, name: str) -> str | None:
    values = [value for key, value in headers if key == name]
    return ", ".join(values) if values else None


def _etags(headers: Headers, name: str, *, weak: bool) -> tuple[str, ...] | None:
    """The etags of a list; weak ones count only for a weak comparison (RFC 9110 8.8.3.2)."""
    rest = _joined(headers, name)
    if rest is None:
        return None
    found: list[tuple[str | None, str]] = []
    separated = True
    while rest := rest.lstrip(" \t"):
        if rest[0] == ",":
            separated, rest = True, rest[1:]
            continue
        if rest[0] not in _ENCOUNTERED:
            break
        if not separated:
            raise PlatformError(f"Comma was expected to separate etags. {_ENCOUNTERED[rest[0]]}")
        if rest[0] == "*":
            return ("*",)
        mark, etag = _first_etag(rest)
        found.append((mark, etag))
        separated, rest = False, rest[len(mark or "") + len(etag) + 2 :]
    if not found:
        raise PlatformError(f"Invalid ETag in {name} header")
    return tuple(etag for mark, etag in found if weak or not mark)


def _first_etag(text: str) -> tuple[str | None, str]:
    match = _ETAG.match(text)
    if match is not None:
        return match[1], match[2]
    if text.startswith(('"', 'W/"')):
        raise PlatformError("Unclosed double quote for Etag")
    raise PlatformError("Weak etags must start with W/ and their value must be quoted")


def _date(header: str | None) -> float | None:
    """Unix milliseconds; None for an invalid date, which HTTP says to ignore."""
    if header is None:
        return None
    try:
        return parsedate_to_datetime(header).timestamp() * 1000
    except ValueError:
        return None

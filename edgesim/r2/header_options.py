"""R2 options given as HTTP headers: ``get(key, {range: request.headers})``.

All take (name, value) pairs with names in lower case.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

from edgesim.errors import PlatformError
from edgesim.model import Headers, HttpMetadata
from edgesim.r2.options import Conditional, Range

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE | re.ASCII)
_ETAG = re.compile(r'[\s,]*(?:(W/)?"([^"]*)"|(\*))\s*(?:,|$)')


def range_of(headers: Headers) -> Range | None:
    """The Range header; None (the whole object) if absent, malformed or of many ranges."""
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
        etag_matches=_etags(_joined(headers, "if-match"), weak=False),
        etag_does_not_match=_etags(_joined(headers, "if-none-match"), weak=True),
        uploaded_before=_date(_joined(headers, "if-unmodified-since")),
        uploaded_after=_date(_joined(headers, "if-modified-since")),
        seconds_granularity=True,
    )


def http_metadata_of(headers: Headers) -> HttpMetadata:
    """What R2 keeps of a request's headers."""
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


def _etags(header: str | None, *, weak: bool) -> tuple[str, ...] | None:
    """The etags of a list; weak ones count only where the comparison is weak (RFC 9110 8.8.3.2)."""
    if header is None:
        return None
    header = header.strip(" ,")
    etags: list[str] = []
    position = 0
    while position < len(header):
        match = _ETAG.match(header, position)
        if match is None:
            raise PlatformError("Invalid conditional header")
        if match[3] or weak or not match[1]:
            etags.append(match[3] or match[2])
        position = match.end()
    return tuple(etags)


def _date(header: str | None) -> float | None:
    """Unix milliseconds; None for a date that cannot be read, which HTTP says to ignore."""
    if header is None:
        return None
    try:
        return parsedate_to_datetime(header).timestamp() * 1000
    except ValueError:
        return None

"""An object's metadata in headers: of requests that write it, and of responses."""

from __future__ import annotations

import base64
import re
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.utils import formatdate

from edgesim.dev.s3_api import checksums
from edgesim.dev.s3_api.call import STORAGE_CLASS, storage_class_header
from edgesim.dev.s3_api.request import S3Request
from edgesim.model import Headers, HttpMetadata, R2Object
from edgesim.r2 import header_options
from edgesim.r2.options import Conditional

_CUSTOM = "x-amz-meta-"
_CONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
_CHUNKED = "aws-chunked"
_MISSING = "x-amz-missing-meta"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROLS = re.compile("[\x00-\x1f\x7f]")


def http_metadata(request: S3Request) -> HttpMetadata:
    """The HTTP metadata that a request gives its object."""
    headers: Headers = []
    for name, value in request.headers():
        if name == "content-encoding":
            codings = [each.strip() for each in value.split(",")]
            value = ", ".join(each for each in codings if each and each != _CHUNKED)  # noqa: PLW2901
        if value:
            headers.append((name, value))
    return header_options.http_metadata_of(headers)


def custom_metadata(request: S3Request) -> dict[str, str]:
    """The custom metadata that a request gives its object; RFC 2047 words are decoded."""
    found: dict[str, str] = {}
    given = request.headers(_CUSTOM)
    if request.has("X-Amz-Signature"):  # some SDKs move headers into the URL that they sign
        given += [
            (name.removeprefix(_CUSTOM), value)
            for name, value in request.query
            if name.startswith(_CUSTOM)
        ]
    for name, value in given:
        text = _decoded(value)
        found[name] = f"{found[name]},{text}" if name in found else text
    return found


def _decoded(value: str) -> str:
    if "=?" not in value:
        return value
    try:
        return str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, UnicodeError):
        return value


def conditional(request: S3Request, prefix: str = "") -> Conditional | None:
    """The conditions in headers with that prefix; None if there is none.

    An object last modified in the very second of If-Unmodified-Since is unmodified.
    """
    headers = [
        (name, _quoted(value) if name.endswith("match") else value)
        for name, value in request.headers(prefix)
        if name in _CONDITIONS
    ]
    if prefix:
        headers = [each for each in headers if request.header(prefix + each[0]) is not None]
    if not headers:
        return None
    found = header_options.conditional_of(headers)
    before = found.uploaded_before
    return Conditional(
        found.etag_matches,
        found.etag_does_not_match,
        None if before is None else before + 1000,
        found.uploaded_after,
        seconds_granularity=True,
    )


def is_unmodified(condition: Conditional, found: R2Object) -> bool:
    """True if a read fails because the client has this version already (304, not 412)."""
    required = Conditional(
        condition.etag_matches,
        uploaded_before=condition.uploaded_before,
        seconds_granularity=True,
    )
    return required.holds(found)


def _quoted(etag: str) -> str:
    """The etag in quotes; some clients leave them out."""
    return etag if '"' in etag or etag.strip() == "*" else f'"{etag.strip()}"'


def object_headers(found: R2Object) -> Headers:
    """The headers of a response about an object, without its length."""
    http = found.http_metadata
    given = {
        "etag": f'"{found.etag}"',
        "last-modified": formatdate(found.uploaded / 1000, usegmt=True),
        "accept-ranges": "bytes",
        "content-type": http.content_type or "application/octet-stream",
        "content-language": http.content_language,
        "content-disposition": http.content_disposition,
        "content-encoding": http.content_encoding,
        "cache-control": http.cache_control,
        "expires": http.cache_expiry and formatdate(http.cache_expiry / 1000, usegmt=True),
        STORAGE_CLASS: storage_class_header(found.storage_class),
    }
    headers = [(name, _CONTROLS.sub(" ", value)) for name, value in given.items() if value]
    missing = 0
    for name, value in found.custom_metadata.items():
        if _TOKEN.fullmatch(name):
            headers.append((_CUSTOM + name, _encoded(value)))
        else:
            missing += 1
    if missing:
        headers.append((_MISSING, str(missing)))
    return headers


def _encoded(value: str) -> str:
    """The value as a header has it: an RFC 2047 word, unless it is plain ASCII."""
    if value.isascii() and value.isprintable():
        return value
    return f"=?utf-8?b?{base64.b64encode(value.encode()).decode()}?="


def checksum_headers(request: S3Request, found: R2Object) -> Headers:
    """The object's stored checksums, if the client asks for them."""
    if (request.header("x-amz-checksum-mode") or "").upper() != "ENABLED":
        return []
    return list(checksums.shown(found.checksums).items())

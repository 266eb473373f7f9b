"""A request of the S3 API: bucket, key, query and headers."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from starlette.types import Receive, Scope

from edgesim.dev.edge import TARGET
from edgesim.dev.s3_api.refusals import S3ApiError, route_not_found
from edgesim.model import Headers


class S3Request:
    """One request; ``base`` is the path below which buckets are.

    ``key`` is empty for operations on the bucket, ``bucket`` too for those on all buckets.
    """

    def __init__(self, scope: Scope, receive: Receive, base: str) -> None:
        target: bytes = scope["extensions"][TARGET]
        path, _, query = target.partition(b"?")
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.path = path
        """The path as it was sent, which is what clients sign."""
        self.query = _parameters(query)
        self.fields: list[tuple[bytes, bytes]] = [
            (name, value.strip(b" \t")) for name, value in scope["headers"]
        ]
        """The headers in bytes, names in lower case."""
        self.above = ""
        """The part of a listing's keys that is not in the bucket; see ``app``."""
        if not path.startswith(base.encode()):
            raise route_not_found()
        rest = path[len(base) :].removeprefix(b"/")
        bucket, _, key = rest.partition(b"/")
        self.bucket, self.key = _text(unquote_to_bytes(bucket)), _text(unquote_to_bytes(key))

    def parameter(self, name: str) -> str | None:
        """The first query parameter of that name; None if there is none."""
        return next((value for each, value in self.query if each == name), None)

    def has(self, name: str) -> bool:
        """True if the query has the parameter, with or without a value."""
        return any(each == name for each, _ in self.query)

    def header(self, name: str) -> str | None:
        """The headers of that name, joined by commas; None if there is none."""
        values = [value for each, value in self.fields if each == name.encode()]
        return _header_text(b",".join(values)) if values else None

    def headers(self, prefix: str = "") -> Headers:
        """All headers with names that begin with ``prefix``; the names without it."""
        return [
            (_header_text(name)[len(prefix) :], _header_text(value))
            for name, value in self.fields
            if name.startswith(prefix.encode())
        ]


def _parameters(query: bytes) -> list[tuple[str, str]]:
    pairs = [each.partition(b"=")[::2] for each in query.split(b"&") if each]
    return [(_decoded(name), _decoded(value)) for name, value in pairs]


def _decoded(part: bytes) -> str:
    return _text(unquote_to_bytes(part.replace(b"+", b" ")))


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        text = "The specified URI couldn't be parsed: it is not UTF-8."
        raise S3ApiError(400, "InvalidURI", text) from None


def _header_text(data: bytes) -> str:
    """The text of a header: UTF-8 as current clients send it, else ISO 8859-1 as HTTP has it."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")

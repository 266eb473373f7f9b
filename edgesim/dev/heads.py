"""Request heads: refuse those that a proxy in front of edgesim may parse differently.

httptools refuses most of these itself (two lengths, a length beside chunked encoding, bare line
feeds, folded headers, space before a colon); this module covers those that it accepts.
"""

from __future__ import annotations

import http
import re
from ipaddress import IPv6Address

import msgspec

_HOST = re.compile(rb"([A-Za-z0-9_.~-]+|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{0,5}))?")
_TARGET = re.compile(r"/[^\x00-\x20\x7f<>#`?]*(?:\?[^\x00-\x20\x7f<>#\"]*)?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE)
_METHODS = {
    *("ACL", "CHECKOUT", "COPY", "DELETE", "GET", "HEAD", "LOCK", "MERGE", "MKACTIVITY", "MKCOL"),
    *("MOVE", "NOTIFY", "OPTIONS", "PATCH", "POST", "PROPFIND", "PROPPATCH", "PURGE", "PUT"),
    *("QUERY", "REPORT", "SEARCH", "SUBSCRIBE", "UNLOCK", "UNSUBSCRIBE"),
}
"""The methods that workerd and httptools know."""
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
_OPERATOR_PATHS = (b"/cdn-cgi/", b"/client/v4/")


class Refusal(msgspec.Struct, frozen=True):
    """A response to a request that is not passed to any application."""

    status: int
    reason: str

    def response(self) -> bytes:
        """The complete response, after which the connection closes."""
        text = f"error code: {self.status}, {self.reason}\n".encode()
        retry = "retry-after: 1\r\n" if self.status == 503 else ""
        head = (
            f"HTTP/1.1 {self.status} {http.HTTPStatus(self.status).phrase}\r\n"
            f"content-type: text/plain; charset=UTF-8\r\ncontent-length: {len(text)}\r\n"
            f"{retry}connection: close\r\n\r\n"
        )
        return head.encode() + text


def problem_of(
    version: str, method: str, url: bytes, headers: list[tuple[bytes, bytes]]
) -> Refusal | None:
    """The reason to refuse a request by its head; None if it is well formed."""
    if version not in {"1.0", "1.1"}:
        return Refusal(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if method in {"CONNECT", "TRACE"}:
        return Refusal(405, f"method {method} is not served")
    if method not in _METHODS:
        return Refusal(501, f"method {method} is not known")
    hosts, encodings = [], []
    for name, value in headers:
        if name == b"host":
            hosts.append(value.strip(b" \t"))
        elif name == b"transfer-encoding":
            encodings.append(value)
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return Refusal(400, "a request needs exactly one Host header")
    if hosts and not _is_authority(hosts[0]):
        return Refusal(400, "the Host header is not a host name and port")
    absolute = None if url.startswith(b"/") else _ABSOLUTE.fullmatch(url)
    if absolute is not None and [absolute[1].lower()] != [host.lower() for host in hosts]:
        return Refusal(400, "the URL's host is not the one of the Host header")
    if not _is_target(target_of(url)):
        return Refusal(400, "the URL is not a path with a query")
    for value in encodings:
        if value.lower() != b"chunked" or version == "1.0":
            return Refusal(501, "the only transfer encoding is chunked")
    if not _VALUE.fullmatch(b"".join([value for _, value in headers])):
        return Refusal(400, "a header has a control character")
    return None


def _is_authority(host: bytes) -> bool:
    found = _HOST.fullmatch(host)
    if found is None or int(found[2] or 0) > 65_535:
        return False
    try:
        if host.startswith(b"["):
            IPv6Address(found[1][1:-1].decode("ascii"))
    except ValueError:
        return False
    return True


def _is_target(target: bytes) -> bool:
    try:
        return _TARGET.fullmatch(target.decode()) is not None
    except UnicodeDecodeError:
        return False


def target_of(url: bytes) -> bytes:
    """Path and query of a target, which may be an absolute URL."""
    absolute = None if url.startswith(b"/") else _ABSOLUTE.fullmatch(url)
    if absolute is None:
        return url
    rest = absolute[2]
    return rest if rest.startswith(b"/") else b"/" + rest


def is_for_operator(url: bytes) -> bool:
    """True if the request may use the connections reserved for the operator."""
    return target_of(url).startswith(_OPERATOR_PATHS)

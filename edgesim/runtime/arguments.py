"""Validation of a Call's arguments: an isolate is untrusted and may send any value."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from edgesim.errors import PlatformError
from edgesim.isolates.protocol.wire import Call
from edgesim.model import Headers

_HEADER = re.compile(r"[!-9;-~]+: [^\x00\r\n\ud800-\udfff]*")
"""As in workerd, a value may have any control character but NUL and those that end it."""
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class WireRequest(msgspec.Struct):
    """A request sent by an isolate; ``body`` is bytes, a StreamRef or None."""

    method: str
    url: str
    headers: Headers
    body: Any = None
    redirect: Literal["follow", "manual"] = "follow"


def argument(args: list[Any], index: int, method: str) -> Any:
    """Return ``args[index]``; PlatformError if it is missing."""
    if index < len(args):
        return args[index]
    raise PlatformError(
        f"Failed to execute '{method}': {index + 1} arguments required, but only {len(args)} "
        "present.",
        "TypeError",
    )


def request_of(args: list[Any]) -> WireRequest:
    """Return the request to fetch; PlatformError if the argument is not a valid request."""
    try:
        request = msgspec.convert(argument(args, 0, "fetch"), WireRequest)
    except msgspec.ValidationError as error:
        raise PlatformError(f"Failed to execute 'fetch': {error}", "TypeError") from error
    if not _METHOD.fullmatch(request.method):
        raise PlatformError(f"{request.method[:100]!r} is not a valid HTTP method.", "TypeError")
    name = invalid_header(request.headers)
    if name is not None:
        raise PlatformError(f"Invalid header {name[:100]!r}.", "TypeError")
    return request


def invalid_header(headers: Headers) -> str | None:
    """Return the name of the first invalid header, which could inject another; None if none is."""
    for name, value in headers:
        if not _HEADER.fullmatch(f"{name}: {value}"):
            return name
    return None


def number_of(call: Call) -> float:
    """Return the only argument of a call to the platform itself: a time in seconds, or a handle."""
    value = argument(call.args, 0, call.method)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18:
        return value
    raise PlatformError(f"Failed to execute '{call.method}': it requires a number.", "TypeError")

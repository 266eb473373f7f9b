"""Fixtures: NDJSON, one request a line, ``.gz`` too.

A bare JSON object or array is an event: POSTed to the entry Worker.  An envelope has the key
``request``: {"at": seconds, "worker": name, "request": {"method", "path", "headers", "json" |
"body"}}.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from edgesim.errors import ConfigError
from edgesim.model import HttpRequest

ORIGIN = "http://edgesim.localhost"


class FixtureRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The request of an envelope; ``body`` is sent as it is, ``json`` as JSON."""

    method: str = "POST"
    path: str = "/"
    headers: dict[str, str] = {}
    body: str | None = None
    json: msgspec.Raw | None = None


class Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """One line with more to say than an event; ``at`` is seconds from the start."""

    request: FixtureRequest
    at: float = 0.0
    worker: str | None = None


class Arrival(msgspec.Struct):
    """A request and where it goes; ``worker`` None is the entry Worker."""

    request: HttpRequest
    at: float = 0.0
    worker: str | None = None


def read(path: Path) -> Iterator[Arrival]:
    """The fixture's requests in order; ConfigError names file and line."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _arrival(path, number, line.strip())
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(path, None, f"cannot read the fixture: {error}") from error


def _arrival(path: Path, number: int, line: bytes) -> Arrival:
    try:
        value: Any = json.loads(line)
        if not (isinstance(value, dict) and "request" in value):
            return Arrival(HttpRequest("POST", f"{ORIGIN}/", [_JSON], line))
        envelope = msgspec.json.decode(line, type=Envelope)
    except (ValueError, msgspec.MsgspecError) as error:
        problem = f"{error}; a line is a JSON event or an envelope with `request`"
        raise ConfigError(path, f"line {number}", problem) from error
    wanted = envelope.request
    headers = list(wanted.headers.items())
    if wanted.json is not None:
        headers = [_JSON, *headers]
        body = bytes(wanted.json)
    else:
        body = (wanted.body or "").encode("utf-8", "surrogatepass")
    request = HttpRequest(wanted.method, f"{ORIGIN}{wanted.path}", headers, body)
    return Arrival(request, envelope.at, envelope.worker)


_JSON = ("content-type", "application/json")

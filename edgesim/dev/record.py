"""``dev --record FILE``: live traffic, written as a fixture that replays.

Secrets do not get into it: headers that look like secrets by the platform's own rule for traces,
values of such keys in JSON bodies and in the query, and what looks like an id or a card number in
the path.  A line is complete on disk before its request is served.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from edgesim.clock import Clock
from edgesim.errors import UsageError
from edgesim.model import HttpRequest
from edgesim.runtime.redaction import is_secret, redact_url

REDACTED = "REDACTED"
_SECRET_WORDS = ("password", "passwd", "credential", "cookie")
_OF_THE_CONNECTION = {
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "accept-encoding",
}


class Recorder:
    """Writes requests with the time since it began."""

    def __init__(self, file: BinaryIO, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._began = clock.now()
        self._start: str | None = clock.datetime().isoformat(timespec="milliseconds")

    def add(self, request: HttpRequest, worker: str | None) -> None:
        """One request, whose body has been read, to the Worker of that name or to the entry."""
        line: dict[str, Any] = {"at": round(self._clock.now() - self._began, 3)}
        if self._start is not None:
            line = {"start": self._start} | line
            self._start = None
        if worker is not None:
            line["worker"] = worker
        assert isinstance(request.body, bytes)
        line["request"] = {
            "method": request.method,
            "path": _path(request.url),
            "headers": {
                name: REDACTED if _is_secret(name) else value
                for name, value in request.headers
                if name.lower() not in _OF_THE_CONNECTION
            },
        } | _body(request.body)
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()


@contextmanager
def recording(path: Path, clock: Clock) -> Iterator[Recorder]:
    """A Recorder into a new file; UsageError if there is one already or none can be made."""
    try:
        raw = path.open("xb")
    except FileExistsError:
        raise UsageError(f"--record: {path} is there already; choose another file") from None
    except OSError as error:
        raise UsageError(f"--record: cannot write {path}: {error.strerror}") from error
    with raw:
        if path.suffix != ".gz":
            yield Recorder(cast("BinaryIO", raw), clock)
            return
        with gzip.open(raw, "wb") as packed:
            yield Recorder(cast("BinaryIO", packed), clock)


def _is_secret(name: str) -> bool:
    lower = name.lower()
    return is_secret(lower) or any(word in lower for word in _SECRET_WORDS)


def _path(url: str) -> str:
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = urlencode([(key, REDACTED if _is_secret(key) else value) for key, value in pairs])
    return redact_url(parts.path or "/") + (f"?{query}" if query else "")


def _body(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return {"base64": body}
    try:
        value = json.loads(text)
    except ValueError:
        return {"body": text}
    redacted = _without_secrets(value)
    # As it came, if nothing had to be taken out: the replay is to see the same bytes.
    return {"body": text} if redacted == value else {"json": redacted}


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: REDACTED if _is_secret(key) else _without_secrets(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(each) for each in value]
    return value

"""Fixtures: NDJSON with one request per line, optionally ``.gz``.

A bare JSON object or array is an event, which is POSTed to the entry Worker. An envelope has the
key ``request``: {"at": seconds, "worker": name, "request": {"method", "path", "headers", "json" |
"body"}}; the first one may set the start time ("start": "2026-01-31T12:00:00Z"). A line with
``outbound`` and ``response`` is a reply of the internet: {"outbound": {"method", "url"},
"response": {"status", "headers", "json" | "body"}}, for requests that come after it.
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from edgesim.errors import ConfigError, reason
from edgesim.model import Headers, HttpRequest, HttpResponse

ORIGIN = "http://edgesim.localhost"
_JSON = ("content-type", "application/json")


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    """``body`` is sent unchanged, ``base64`` is decoded, ``json`` is sent as JSON."""

    headers: dict[str, str] = {}
    body: str | None = None
    base64: bytes | None = None
    json: msgspec.Raw = msgspec.Raw()


class FixtureRequest(_Message, forbid_unknown_fields=True):
    """Request of an envelope."""

    method: str = "POST"
    path: str = "/"


class FixtureResponse(_Message, forbid_unknown_fields=True):
    """Response of the internet."""

    status: int = 200


class Envelope(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A line with more data than an event; ``at`` is seconds from the start."""

    request: FixtureRequest
    at: float = 0.0
    worker: str | None = None
    start: str | None = None


class _Address(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    method: str = "GET"


class _Answer(msgspec.Struct, forbid_unknown_fields=True):
    outbound: _Address
    response: FixtureResponse


class _Probe(msgspec.Struct):
    request: msgspec.Raw = msgspec.Raw()
    outbound: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


class RecordedRequest(msgspec.Struct):
    """A request and its target; ``worker`` None is the entry Worker."""

    request: HttpRequest
    at: float = 0.0
    worker: str | None = None

    @property
    def size(self) -> int:
        """Length of the request body in bytes."""
        assert isinstance(self.request.body, bytes)
        return len(self.request.body)


class RecordedFetch(msgspec.Struct):
    """A response of the internet to a Worker's request."""

    method: str
    url: str
    response: HttpResponse


class Fixture:
    """One file, read lazily; ``share`` is the fraction of its bytes already read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._size = 1

    @property
    def share(self) -> float:
        """Fraction of the file already read, from 0 to 1."""
        if self._file is None or self._file.closed:
            return 0.0
        return min(1.0, self._file.tell() / self._size)

    def __iter__(self) -> Iterator[RecordedRequest | RecordedFetch]:
        """Yield the lines in order; ConfigError names file and line."""
        for number, line in self._lines():
            yield _read(self.path, number, line)

    def start(self) -> float | None:
        """Start time in the first request line, in Unix seconds; None if it has none."""
        for number, line in self._lines():
            if not isinstance(_read(self.path, number, line), RecordedRequest):
                continue
            try:
                begins = msgspec.json.decode(line, type=Envelope).start
            except msgspec.MsgspecError:
                return None  # a bare event has no start time
            return None if begins is None else unix_time(begins, f"{self.path}: line {number}")
        return None

    def lines(self) -> Iterator[bytes]:
        """Yield the non-empty lines as raw bytes."""
        return (line for _, line in self._lines())

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        try:
            with self.path.open("rb") as self._file:
                self._size = max(1, self.path.stat().st_size)
                packed = self.path.suffix == ".gz"
                lines = gzip.GzipFile(fileobj=self._file) if packed else self._file
                for number, line in enumerate(lines, 1):
                    text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                    if stripped := text.strip():
                        yield number, stripped
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(
                self.path, None, f"cannot be read as a fixture: {reason(error)}"
            ) from error


def unix_time(text: str, where: object) -> float:
    """Parse an ISO date or time, UTC by default, to Unix seconds; ConfigError if it is invalid."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        problem = f"{text!r} is not an ISO date or time, like 2026-01-31T12:00:00Z"
        raise ConfigError(where, None, problem) from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _read(path: Path, number: int, line: bytes) -> RecordedRequest | RecordedFetch:
    if b"\\ud" in line.lower() and _is_event(line):
        return RecordedRequest(HttpRequest("POST", f"{ORIGIN}/", [_JSON], line))
    try:
        if not line.startswith(b"{"):
            msgspec.json.decode(line, type=msgspec.Raw)
            return RecordedRequest(HttpRequest("POST", f"{ORIGIN}/", [_JSON], line))
        probe = msgspec.json.decode(line, type=_Probe)
        if bytes(probe.outbound) and bytes(probe.response):
            return _outbound(msgspec.json.decode(line, type=_Answer))
        if not bytes(probe.request):
            return RecordedRequest(HttpRequest("POST", f"{ORIGIN}/", [_JSON], line))
        envelope = msgspec.json.decode(line, type=Envelope)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        problem = f"{error}; a line is a JSON event or an envelope with `request`"
        raise ConfigError(path, f"line {number}", problem) from error
    wanted = envelope.request
    headers, body = _content(wanted)
    url = wanted.path if wanted.path.startswith(("http://", "https://")) else ORIGIN + wanted.path
    return RecordedRequest(
        HttpRequest(wanted.method, url, headers, body), envelope.at, envelope.worker
    )


def _is_event(line: bytes) -> bool:
    """True for an event with a lone surrogate, which msgspec rejects as JSON."""
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return isinstance(event, dict) and not {"request", "outbound"} & event.keys()


def _outbound(answer: _Answer) -> RecordedFetch:
    headers, body = _content(answer.response)
    response = HttpResponse(answer.response.status, headers, body)
    return RecordedFetch(answer.outbound.method.upper(), answer.outbound.url, response)


def _content(message: _Message) -> tuple[Headers, bytes]:
    headers = list(message.headers.items())
    if len(text := bytes(message.json)):
        return [_JSON, *headers], text
    if message.base64 is not None:
        return headers, message.base64
    return headers, (message.body or "").encode("utf-8", "surrogatepass")

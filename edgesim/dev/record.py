"""``dev --record FILE``: record live traffic as a fixture for replay.

Secrets are redacted: headers that look like secrets by the platform's rule for traces, values of
such keys in JSON bodies and queries, and parts of the path that look like an id or a card number. A
line is written completely before its request is served. If that fails (disk full), the request is
still served, and recording continues with the next one.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
import structlog

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
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"

log = structlog.get_logger()


class Packing(Protocol):
    """Storage format of the lines."""

    header: bytes

    def packed(self, line: bytes) -> bytes:
        """Encode the next line."""

    def keep(self, line: bytes) -> None:
        """Record that the last encoded line has been stored."""

    def forget(self) -> None:
        """Discard the last encoded line, which was not stored."""

    def end(self) -> bytes:
        """The bytes that complete the file."""


class Plain:
    """Uncompressed lines."""

    header = b""

    def packed(self, line: bytes) -> bytes:
        return line

    def keep(self, line: bytes) -> None:
        pass

    def forget(self) -> None:
        pass

    def end(self) -> bytes:
        return b""


class Gzip:
    """One gzip member, flushed to a deflate block boundary after each line."""

    header = _GZIP_HEADER

    def __init__(self) -> None:
        self._checksum = 0
        self._bytes = 0
        self.forget()

    def packed(self, line: bytes) -> bytes:
        return self._compressor.compress(line) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def keep(self, line: bytes) -> None:
        self._checksum = zlib.crc32(line, self._checksum)
        self._bytes += len(line)

    def forget(self) -> None:
        # A new compressor does not refer to earlier data.
        self._compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)

    def end(self) -> bytes:
        sizes = struct.pack("<II", self._checksum, self._bytes & 0xFFFFFFFF)
        return self._compressor.flush() + sizes


class Recorder:
    """Writes requests with the seconds since the recording began.

    ``missing`` counts requests that could not be written.
    """

    def __init__(self, fd: int, path: Path, packing: Packing, clock: Clock) -> None:
        self.missing = 0
        self._fd = fd
        self._path = path
        self._packing = packing
        self._end = 0  # offset in bytes of the end of the last complete line
        self._clock = clock
        self._began = clock.now()
        self._start: str | None = clock.datetime().isoformat(timespec="milliseconds")

    def add(self, request: HttpRequest, worker: str | None) -> None:
        """Record a request whose body has been read; ``worker`` None means the entry Worker."""
        seconds = self._clock.now() - self._began
        self._write(fixture_line(request, worker, seconds, self._start))

    def begin(self) -> None:
        """Write the file header; OSError if that fails."""
        self._append(self._packing.header)

    def finish(self) -> None:
        """Complete the file; log an error if it is incomplete."""
        try:
            self._append(self._packing.end())
            os.ftruncate(self._fd, self._end)
        except OSError as error:
            log.error("recording not completed", file=str(self._path), error=error.strerror)
        if self.missing:
            log.error("recording is incomplete", file=str(self._path), missing=self.missing)

    def _write(self, line: bytes) -> None:
        try:
            self._append(self._packing.packed(line))
        except OSError as error:
            self._packing.forget()
            if not self.missing:
                log.error(
                    "request not recorded, the recording will be incomplete",
                    file=str(self._path),
                    error=error.strerror,
                )
            self.missing += 1
        else:
            self._packing.keep(line)
            self._start = None

    def _append(self, data: bytes) -> None:
        """Write after the last complete line, overwriting the rest of a failed write."""
        written = 0
        while written < len(data):
            written += os.pwrite(self._fd, data[written:], self._end + written)
        self._end += written


@contextmanager
def recording(path: Path, clock: Clock) -> Iterator[Recorder]:
    """Record into a new file; UsageError if it exists or cannot be created."""
    try:
        file = path.open("xb", buffering=0)
    except FileExistsError:
        raise UsageError(f"--record: {path} is there already; choose another file") from None
    except OSError as error:
        raise UsageError(f"--record: cannot write {path}: {error.strerror}") from error
    with file:
        packing = Gzip() if path.suffix == ".gz" else Plain()
        recorder = Recorder(file.fileno(), path, packing, clock)
        try:
            recorder.begin()
        except OSError as error:
            raise UsageError(f"--record: cannot write {path}: {error.strerror}") from error
        try:
            yield recorder
        finally:
            recorder.finish()


def fixture_line(
    request: HttpRequest, worker: str | None, seconds: float, start: str | None
) -> bytes:
    """A line of a fixture, ``seconds`` after its beginning; ``start`` is for the first one."""
    line: dict[str, Any] = {"at": round(seconds, 3)}
    if start is not None:
        line = {"start": start} | line
    if worker is not None:
        line["worker"] = worker
    return msgspec.json.encode(line | {"request": recorded(request)}) + b"\n"


def recorded(request: HttpRequest) -> dict[str, Any]:
    """A request as in a fixture, without secrets; its body has been read."""
    assert isinstance(request.body, bytes)
    return {
        "method": request.method,
        "path": _path(request.url),
        "headers": {
            name: REDACTED if _is_secret(name) else value
            for name, value in request.headers
            if name.lower() not in _OF_THE_CONNECTION
        },
    } | _body(request.body)


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
    # Keep the original text if nothing was redacted, so that the replay sends the same bytes.
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

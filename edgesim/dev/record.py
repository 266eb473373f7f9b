"""``dev --record FILE``: live traffic, written as a fixture that replays.

Secrets do not get into it: headers that look like secrets by the platform's own rule for traces,
values of such keys in JSON bodies and in the query, and what looks like an id or a card number in
the path.  A line is complete in the file before its request is served.  If it cannot be written
(a full disk), the request is served all the same and the recording goes on with the next one.
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
    """How lines are stored."""

    header: bytes

    def packed(self, line: bytes) -> bytes:
        """The bytes of the next line."""

    def keep(self, line: bytes) -> None:
        """Count the line as stored."""

    def forget(self) -> None:
        """Go on without the line that was packed last: it was not stored."""

    def end(self) -> bytes:
        """What completes the file."""


class Plain:
    """Lines as they are."""

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
    """One gzip member whose deflate blocks end with each line."""

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
        # A new compressor refers to no earlier data.
        self._compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)

    def end(self) -> bytes:
        sizes = struct.pack("<II", self._checksum, self._bytes & 0xFFFFFFFF)
        return self._compressor.flush() + sizes


class Recorder:
    """Writes requests with the time since it began.

    ``missing`` counts those that could not be written.
    """

    def __init__(self, fd: int, path: Path, packing: Packing, clock: Clock) -> None:
        self.missing = 0
        self._fd = fd
        self._path = path
        self._packing = packing
        self._end = 0  # of the last whole line, in bytes
        self._clock = clock
        self._began = clock.now()
        self._start: str | None = clock.datetime().isoformat(timespec="milliseconds")

    def add(self, request: HttpRequest, worker: str | None) -> None:
        """One request, whose body has been read, to the Worker of that name or to the entry."""
        line: dict[str, Any] = {"at": round(self._clock.now() - self._began, 3)}
        if self._start is not None:
            line = {"start": self._start} | line
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
        self._write(msgspec.json.encode(line) + b"\n")

    def begin(self) -> None:
        """Write what the file begins with; OSError if that fails."""
        self._append(self._packing.header)

    def finish(self) -> None:
        """Complete the file; one line in the log if it is incomplete."""
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
        """Write after the last whole line: over what an error has left there."""
        written = 0
        while written < len(data):
            written += os.pwrite(self._fd, data[written:], self._end + written)
        self._end += written


@contextmanager
def recording(path: Path, clock: Clock) -> Iterator[Recorder]:
    """A Recorder into a new file; UsageError if there is one already or none can be made."""
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

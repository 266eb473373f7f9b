"""One request and its response on an HTTP/1 connection, as an ASGI exchange.

Only this module sets the response's framing: connection and transfer-encoding headers of an
application are dropped, and its ``content-length`` is enforced, so that no client can read one
response as two.
"""

from __future__ import annotations

import asyncio
import http
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

import structlog
from starlette.types import ASGIApp, Message, Scope

if TYPE_CHECKING:
    from edgesim.dev.connection import HttpConnection

BODY_HIGH_WATER = 65_536
WRITE_BYTES_MAX = 262_144
"""A larger body is written in parts, each after the client has read most of the previous one."""
HOP_BY_HOP = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer"),
    *(b"transfer-encoding", b"upgrade"),
}
EXCHANGE = "edgesim.exchange"
"""Name of the ASGI extension with the Exchange, whose ``respond`` sends a response in one step."""
_LINES_KEPT_MAX, _LINE_KEPT_MAX = 1024, 256
"""Header lines of responses, and their length, that are kept: responses repeat them."""
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[^\x00\r\n]*")

log = structlog.get_logger()


class Exchange:
    """A request and its response. ``keep_alive`` False: the connection closes afterwards."""

    def __init__(
        self, connection: HttpConnection, scope: Scope, *, keep_alive: bool, expects_continue: bool
    ) -> None:
        self.scope = scope
        scope["extensions"][EXCHANGE] = self
        self.keep_alive = keep_alive
        self.more_body = True
        self.started = False
        self.complete = False
        self.disconnected = False
        self._connection = connection
        self._expects_continue = expects_continue
        self._body = bytearray()
        self._end_received = False
        self._reader: asyncio.Future[None] | None = None
        """Future of the application that waits for a part of the body."""
        self._has_body = True
        self._head = b""
        """Buffered response head, sent together with the first part of the body."""
        self._chunked = False
        self._left: int | None = None
        """Remaining bytes of the response body, if its length is known."""

    async def run(self, app: ASGIApp) -> None:
        """Run the application; an incomplete response becomes a 500 or an aborted connection."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception:
            log.exception("request failed", method=self.scope["method"], path=self.scope["path"])
        finally:
            if not (self.complete or self.disconnected):
                self._connection.fail(self)

    # --- the request's body ---

    def feed(self, data: bytes) -> None:
        """Add a part of the body; it is dropped if the response is complete."""
        if not self.complete:
            self._body += data
            self._wake()

    def end_body(self) -> None:
        """Mark the request body as complete."""
        self.more_body = False
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    @property
    def is_full(self) -> bool:
        """True if the application must read before more is accepted from the client."""
        return len(self._body) > BODY_HIGH_WATER

    def disconnect(self) -> None:
        """Mark the client as disconnected; also used if edgesim stops serving it."""
        self.disconnected = True
        self._wake()

    @property
    def on_wire(self) -> bool:
        """True if a part of the response has been written."""
        return self.started and not self._head

    async def receive(self) -> Message:
        """ASGI's receive callable."""
        if self._expects_continue and not self.started:
            self._expects_continue = False
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self.disconnected or self.complete):
            if self._body or not (self.more_body or self._end_received):
                body, self._body = bytes(self._body), bytearray()
                self._end_received = not self.more_body
                self._connection.adjust()
                return {"type": "http.request", "body": body, "more_body": self.more_body}
            # Several may wait: the application, and the front for the client's disconnect.
            if self._reader is None or self._reader.done():
                self._reader = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._reader)
        return {"type": "http.disconnect"}

    # --- the response ---

    async def send(self, message: Message) -> None:
        """ASGI's send callable; ValueError for a response that cannot be framed.

        Messages are ignored after the client has disconnected.
        """
        await self._connection.writable()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self._start(message["status"], message.get("headers", ()), message.get("reason"))
        else:
            await self._write(message.get("body", b""), more=message.get("more_body", False))

    def _start(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], reason: str | None
    ) -> None:
        if self.started or not 200 <= status <= 599:
            raise ValueError(f"a response cannot start with status {status} here")
        lines = [_status_line(status, reason)]
        lengths = set()
        for name, value in [*self._connection.default_headers, *headers]:
            lower = name.lower()
            if lower == b"content-length":
                lengths.add(value)
            else:
                lines.append(_line(lower, value))
        lines += self._framing(status, lengths)
        if self._expects_continue and self.more_body:
            self.keep_alive = False  # whether the client will send its body is unknown
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self.started = True
        self._head = b"".join(lines)
        if self._left is None:  # a stream, whose first part may be delayed
            self._write_head()

    def _framing(self, status: int, lengths: set[bytes]) -> list[bytes]:
        """The header that marks the end of the body; RFC 9112, section 6."""
        if len(lengths) > 1 or not all(length.isdigit() for length in lengths):
            raise ValueError("the response has an invalid content-length")
        length = next(iter(lengths), None)
        self._has_body = status not in {204, 205, 304} and self.scope["method"] != "HEAD"
        if status == 205:
            return [b"content-length: 0\r\n"]
        if status in {204, 304}:
            return []
        if length is not None:
            self._left = int(length) if self._has_body else None
            return [b"content-length: %d\r\n" % int(length)]
        if not self._has_body:
            return []
        if self.scope["http_version"] == "1.1":
            self._chunked = True
            return [b"transfer-encoding: chunked\r\n"]
        self.keep_alive = False  # HTTP/1.0: the body ends with the connection
        return []

    def respond(
        self,
        status: int,
        reason: str | None,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
    ) -> bool:
        """Send a whole response now; False if it must be sent in parts, as the client reads it.

        ``headers`` include the content-length.  ValueError for one that cannot be framed.
        """
        if len(body) > WRITE_BYTES_MAX or not self._connection.is_writable:
            return False
        if self.disconnected:
            return True
        self._start(status, headers, reason)
        if self._has_body and body:
            self._account(len(body))
            self._write_part(body)
        self._write_head()
        if self._left:
            raise ValueError(f"the response is {self._left} bytes short of its content-length")
        self._finish()
        return True

    async def _write(self, body: bytes, *, more: bool) -> None:
        if not self.started or self.complete:
            raise ValueError("a response body outside of a response")
        if self._has_body and body:
            self._account(len(body))
            await self._write_parts(body)
        if more or self.disconnected:
            return
        self._write_head()
        if self._left:
            raise ValueError(f"the response is {self._left} bytes short of its content-length")
        if self._chunked:
            self._connection.write(b"0\r\n\r\n")
        self._finish()

    def _finish(self) -> None:
        self.complete = True
        self._wake()
        self._connection.finish(self)

    def _account(self, size: int) -> None:
        if self._left is not None:
            if size > self._left:
                raise ValueError("the response is longer than its content-length")
            self._left -= size

    async def _write_parts(self, body: bytes) -> None:
        if len(body) <= WRITE_BYTES_MAX:
            self._write_part(body)
            return
        self._connection.keeps(len(body))
        view = memoryview(body)
        for begin in range(0, len(body), WRITE_BYTES_MAX):
            await self._connection.writable()
            if self.disconnected:
                return
            self._write_part(bytes(view[begin : begin + WRITE_BYTES_MAX]))
        self._connection.keeps(0)

    def _write_head(self) -> None:
        if self._head:
            self._connection.write(self._head)
            self._head = b""

    def _write_part(self, part: bytes) -> None:
        if self._chunked:
            part = b"%x\r\n%b\r\n" % (len(part), part)
        self._connection.write(self._head + part)
        self._head = b""


def _line(name: bytes, value: bytes) -> bytes:
    """Return the line of a header; empty for one that only this module may set."""
    return (_kept_line if len(value) <= _LINE_KEPT_MAX else _new_line)(name, value)


def _new_line(name: bytes, value: bytes) -> bytes:
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError(f"the response has an invalid header {name[:100]!r}")
    return b"" if name in HOP_BY_HOP else b"%b: %b\r\n" % (name, value)


_kept_line = lru_cache(_LINES_KEPT_MAX)(_new_line)


def _status_line(status: int, reason: str | None) -> bytes:
    if reason is not None:
        return b"HTTP/1.1 %d %b\r\n" % (status, reason.encode("latin-1"))
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d %b\r\n" % (status, _CLASSES[status // 100])


_STATUS_LINES = {
    int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode()
    for status in http.HTTPStatus
}
_CLASSES = {2: b"Successful", 3: b"Redirection", 4: b"Client Error", 5: b"Server Error"}
"""workerd's phrases for statuses without a standard phrase."""

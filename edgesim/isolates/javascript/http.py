"""HTTP/1.1 between the platform and one workerd, over Unix sockets: messages and connections.

``http_server`` and ``http_client`` are the two kinds of connection: asyncio protocols over
httptools.  aiohttp was tried for both sides: a request and its calls cost three times as much, and
it has no form for virtual time, where sockets are read in turns.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any, cast

import httptools
import msgspec

from edgesim.errors import EdgesimError, PlatformError
from edgesim.isolates.host.budget import Holder
from edgesim.model import Body, Headers, Stream

UNREAD_BYTES_MAX = 256 * 1024
"""Bytes of a body that are kept unread before the peer has to wait."""
UNREAD_BYTES_MIN = 16 * 1024
"""The same, if unread bodies of all connections of the process are over their limit."""
UNREAD_ALL_BYTES_MAX = 32 << 20
"""Bytes of unread bodies of all connections of one process."""
_READ_BYTES = 32 * 1024
"""Bytes that are read at once: every connection may have so many beyond its limit."""
HEAD_BYTES_MAX = 256 * 1024
"""Bytes of a message's target and headers."""
_HOP_BY_HOP = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})
NO_BODY = {204, 205, 304}
_received = bytearray(_READ_BYTES)


class LostError(EdgesimError):
    """The connection ended before the message did."""


class HeadTooLargeError(LostError):
    """A message of the peer whose head is larger than HEAD_BYTES_MAX; its connection is closed."""

    def __init__(self) -> None:
        super().__init__(f"a message with more than {HEAD_BYTES_MAX >> 10} KB of headers")


class HttpMessage(msgspec.Struct):
    """A request (``method``, ``target``) or a response (``status``, ``reason``).

    ``received`` is set once a body that is a Stream has arrived, or nobody wants the rest.
    """

    headers: Headers
    body: Body = b""
    method: str = ""
    target: str = ""
    status: int = 0
    reason: str = ""
    received: asyncio.Event | None = None

    def header(self, name: str) -> str | None:
        """The first header of that name, in lower case."""
        return next((value for key, value in self.headers if key == name), None)


class Unread:
    """Bytes of the bodies that one process has sent, which nobody has read; ``holder`` has them."""

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.bytes = 0

    def add(self, size: int) -> None:
        """Count bytes; negative if they have been read."""
        self.bytes += size
        self.holder.add(size)

    @property
    def bytes_max(self) -> int:
        """Bytes that one connection may leave unread now."""
        return UNREAD_BYTES_MIN if self.bytes > UNREAD_ALL_BYTES_MAX else UNREAD_BYTES_MAX


class _ArrivingBody(AsyncIterator[bytes]):
    """The body of a message as it arrives."""

    def __init__(self, connection: WorkerdConnection, unread: Unread) -> None:
        self._connection = connection
        self._unread = unread
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._arrived = asyncio.Event()
        self._error: Exception | None = None
        self.ended = False
        self.dropped = False
        self.received = asyncio.Event()

    def feed(self, data: bytes) -> None:
        if self.dropped:
            return
        self._chunks.append(data)
        self._count(len(data))
        if self._size > self._unread.bytes_max:
            self._connection.pause()
        self._arrived.set()

    def _count(self, size: int) -> None:
        self._size += size
        self._unread.add(size)

    def __del__(self) -> None:
        self._count(-self._size)

    def end(self, error: Exception | None = None) -> None:
        if not self.ended:
            self.ended = True
            self._error = error
            self._arrived.set()
            self.received.set()

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.ended or self.dropped:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        chunk = self._chunks.popleft()
        self._count(-len(chunk))
        if self._size <= self._unread.bytes_max:
            self._connection.resume()
        return chunk

    async def aclose(self) -> None:
        """Discard the rest; the connection serves no further message."""
        self.dropped = True
        self._chunks.clear()
        self._count(-self._size)
        self._arrived.set()
        self.received.set()
        if not self.ended:
            self._connection.close()


class WorkerdConnection(asyncio.BufferedProtocol, ABC):
    """One connection, one message at a time in each direction."""

    def __init__(self, unread: Unread) -> None:
        self.closed = False
        self._unread = unread
        self._transport: asyncio.Transport | None = None
        self._parser: Any = self._new_parser()
        # workerd lets control characters into values; it folds no lines, which this allows too.
        self._parser.set_dangerous_leniencies(lenient_headers=True)
        self._headers: list[tuple[str, str]] = []
        self._head_bytes = 0
        self._chunks: _ArrivingBody | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    @abstractmethod
    def _new_parser(self) -> Any:
        """A parser of httptools for the peer's messages, which calls this object."""

    def close(self) -> None:
        """Close the connection."""
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    def pause(self) -> None:
        """Let the peer wait."""
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Let the peer go on."""
        if self._transport is not None and not self.closed and not self._transport.is_reading():
            self._transport.resume_reading()

    async def _write(self, first: bytes, body: Body) -> None:
        """Write a message: its head without the framing headers, and its body.

        LostError if the connection ends first; whatever the body raises closes the connection.
        """
        if isinstance(body, bytes):
            self._send(b"%bcontent-length: %d\r\n\r\n%b" % (first, len(body), body))
            await self._drain(len(body))
            return
        try:
            if body.length is None:
                await self._write_chunked(first, body)
            else:
                await self._write_counted(first, body, body.length)
        except BaseException:
            self.close()
            raise
        finally:
            await body.aclose()

    async def _write_chunked(self, head: bytes, body: Stream) -> None:
        self._send(head + b"transfer-encoding: chunked\r\n\r\n")
        async for chunk in self._as_there_is_room(body):
            if chunk:
                self._send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                await self._drain(len(chunk))
        self._send(b"0\r\n\r\n")

    async def _write_counted(self, head: bytes, body: Stream, length: int) -> None:
        self._send(b"%bcontent-length: %d\r\n\r\n" % (head, length))
        left = length
        async for chunk in self._as_there_is_room(body):
            left -= len(chunk)
            if left < 0:
                raise LostError("the body is longer than its length")
            self._send(chunk)
            await self._drain(len(chunk))
        if left:
            raise LostError("the body is shorter than its length")

    async def _as_there_is_room(self, body: Stream) -> AsyncIterator[bytes]:
        """The chunks of a body; the next one is read once the platform has memory for it."""
        while True:
            try:
                await self._unread.holder.room()
            except PlatformError as error:
                raise LostError(error.message) from error
            chunk = await body.read()
            if not chunk:
                return
            yield chunk

    def _send(self, data: bytes) -> None:
        if self.closed or self._transport is None:
            raise LostError("the connection is closed")
        self._transport.write(data)

    async def _drain(self, size: int) -> None:
        """Wait until the peer has read most of what was sent; ``size`` bytes are kept so long."""
        if not self._writable.is_set():
            self._unread.holder.add(2 * size)  # here, and in the transport
            try:
                await self._writable.wait()
            finally:
                self._unread.holder.drop(2 * size)
        if self.closed:
            raise LostError("the connection is closed")

    # --- what the event loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has no such base

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where received bytes are written; the parser copies them before the next ones come."""
        return _received

    def buffer_updated(self, nbytes: int) -> None:
        """Take received bytes."""
        self.data_received(bytes(_received[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take received bytes."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            is_large = self._head_bytes > HEAD_BYTES_MAX
            self._lose(HeadTooLargeError() if is_large else LostError(f"not HTTP: {error}"))
            self.close()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._writable.set()
        self._lose(LostError("the connection was closed"))
        self._chunks = None  # they refer to each other

    def _lose(self, error: Exception) -> None:
        if self._chunks is not None:
            self._chunks.end(error)

    # --- what the parser calls ---

    def on_message_begin(self) -> None:
        self._headers = []
        self._head_bytes = 0

    def _count_head(self, size: int) -> None:
        """Count bytes of a head; HeadTooLargeError, which the parser stops at, if too many."""
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES_MAX:
            raise HeadTooLargeError

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_body(self, data: bytes) -> None:
        if self._chunks is not None:
            self._chunks.feed(data)

    def on_message_complete(self) -> None:
        if self._chunks is not None:
            self._chunks.end()

    def _body(self) -> Body:
        """The body of the message whose headers have just been read."""
        lengths = [value for name, value in self._headers if name == "content-length"]
        chunked = any(name == "transfer-encoding" for name, _ in self._headers)
        length = int(lengths[0]) if lengths and lengths[0].isdigit() else None
        if not chunked and not length:
            self._chunks = None
            return b""
        self._chunks = _ArrivingBody(self, self._unread)
        return Stream(self._chunks, length)


def head_of(response: HttpMessage) -> bytes:
    """The head of a response, without the headers that frame the message."""
    reason = response.reason or _phrase(response.status)
    first = b"HTTP/1.1 %d %b\r\n" % (response.status, reason.encode("latin-1", "replace"))
    return first + encoded_headers(response.headers)


def encoded_headers(headers: Headers) -> bytes:
    """The lines of a head, without the headers that frame the message."""
    return b"".join(
        b"%b: %b\r\n" % (name.encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in headers
        if name.lower() not in _HOP_BY_HOP
    )


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"

"""HTTP/1.1 between the platform and one workerd, over Unix sockets, both ways.

Plain asyncio protocols over httptools.  aiohttp was tried for both sides: a request and its calls
cost three times as much, and it has no form for virtual time, where sockets are read in turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

import httptools
import msgspec
import structlog

from edgesim.errors import EdgesimError
from edgesim.model import Body, Headers, Stream

UNREAD_BYTES_MAX = 256 * 1024
"""Bytes of a body that are kept unread before the peer has to wait."""
HEAD_BYTES_MAX = 256 * 1024
_HOP_BY_HOP = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})
_NO_BODY = {204, 205, 304}

log = structlog.get_logger()


class LostError(EdgesimError):
    """The connection ended before the message did."""


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


Serve = Callable[[HttpMessage], Awaitable[HttpMessage]]
Deliver = Callable[[HttpMessage | None, Callable[[], None]], None]


class _ArrivingBody(AsyncIterator[bytes]):
    """The body of a message as it arrives."""

    def __init__(self, connection: _HttpConnection) -> None:
        self._connection = connection
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
        self._size += len(data)
        if self._size > UNREAD_BYTES_MAX:
            self._connection.pause()
        self._arrived.set()

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
        self._size -= len(chunk)
        if self._size <= UNREAD_BYTES_MAX:
            self._connection.resume()
        return chunk

    async def aclose(self) -> None:
        """Discard the rest; the connection serves no further message."""
        self.dropped = True
        self._chunks.clear()
        self._arrived.set()
        self.received.set()
        if not self.ended:
            self._connection.close()


class _HttpConnection(asyncio.Protocol):
    """One connection, one message at a time in each direction."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._parser: Any = self._new_parser()
        self._headers: list[tuple[str, str]] = []
        self._chunks: _ArrivingBody | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def _new_parser(self) -> Any:
        raise NotImplementedError

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
            await self._drain()
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
        async for chunk in body:
            if chunk:
                self._send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                await self._drain()
        self._send(b"0\r\n\r\n")

    async def _write_counted(self, head: bytes, body: Stream, length: int) -> None:
        self._send(b"%bcontent-length: %d\r\n\r\n" % (head, length))
        left = length
        async for chunk in body:
            left -= len(chunk)
            if left < 0:
                raise LostError("the body is longer than its length")
            self._send(chunk)
            await self._drain()
        if left:
            raise LostError("the body is shorter than its length")

    def _send(self, data: bytes) -> None:
        if self.closed or self._transport is None:
            raise LostError("the connection is closed")
        self._transport.write(data)

    async def _drain(self) -> None:
        await self._writable.wait()
        if self.closed:
            raise LostError("the connection is closed")

    # --- what the event loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has no such base

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._lose(LostError(f"not HTTP: {error}"))
            self.close()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._writable.set()
        self._lose(LostError("the connection was closed"))

    def _lose(self, error: Exception) -> None:
        if self._chunks is not None:
            self._chunks.end(error)

    # --- what the parser calls ---

    def on_message_begin(self) -> None:
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
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
        self._chunks = _ArrivingBody(self)
        return Stream(self._chunks, length)


class ServerConnection(_HttpConnection):
    """A connection that workerd has opened to the platform."""

    def __init__(self, serve: Serve, tasks: asyncio.TaskGroup) -> None:
        super().__init__()
        self._serve = serve
        self._tasks = tasks
        self._target = b""
        self._task: asyncio.Task[None] | None = None
        self._request = HttpMessage([])
        self._hear: Callable[[ServerConnection, HttpMessage], None] | None = None

    def in_turns(self, hear: Callable[[ServerConnection, HttpMessage], None]) -> None:
        """Call ``hear`` with each request once it is complete, instead of serving it at once."""
        self._hear = hear

    def _new_parser(self) -> Any:
        return httptools.HttpRequestParser(self)

    def refuse(self) -> None:
        """Close the connection as soon as it is made."""
        self.closed = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.closed:
            transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._target = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_headers_complete(self) -> None:
        method = self._parser.get_method().decode()
        target = self._target.decode("latin-1")
        self._request = HttpMessage(self._headers, self._body(), method, target)
        if self._hear is None:
            self.begin(self._request)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._hear is not None:
            self._hear(self, self._request)

    def begin(self, request: HttpMessage, on_replied: Callable[[], None] | None = None) -> None:
        """Serve a request in a task of its own; ``on_replied`` is called once that is written."""
        self._task = self._tasks.create_task(self._reply(request, on_replied))

    def reply(self, response: HttpMessage) -> None:
        """Send a response without a body."""
        with suppress(LostError):
            self._send(_head_of(response) + b"\r\n")

    async def _reply(self, request: HttpMessage, on_replied: Callable[[], None] | None) -> None:
        """Reply to a request; whatever fails costs this connection alone, not its task group."""
        try:
            await self._write_reply(request, on_replied)
        except LostError:
            self.close()  # workerd no longer waits for the response
        except asyncio.CancelledError:
            self.close()  # its invocation has ended
            raise
        except EdgesimError as error:
            log.warning("a Worker's read was cut short", error=str(error))
            self.close()
        except Exception:
            log.exception("internal error", request=request.target)
            self.close()

    async def _write_reply(
        self, request: HttpMessage, on_replied: Callable[[], None] | None
    ) -> None:
        response = await self._serve(request)
        head = _head_of(response)
        if request.method == "HEAD" or response.status in _NO_BODY:
            if isinstance(response.body, Stream):
                await response.body.aclose()
            self._send(head + b"\r\n")
        else:
            await self._write(head, response.body)
        if on_replied is not None:
            on_replied()
        if isinstance(request.body, Stream):
            await request.body.aclose()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._task is not None:
            self._task.cancel()


class ClientConnection(_HttpConnection):
    """A connection to a socket of workerd."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        super().__init__()
        self._tasks = tasks
        self._response: asyncio.Future[HttpMessage] | None = None
        self._reason = b""
        self._sent = False
        self._is_head = False
        self._on_idle: Callable[[ClientConnection], None] = lambda _: None
        self._deliver: Deliver | None = None
        self._on_sent: Callable[[], None] | None = None
        self._delivered = False
        self._found: HttpMessage | None = None

    def _new_parser(self) -> Any:
        return httptools.HttpResponseParser(self)

    async def exchange(
        self,
        request: HttpMessage,
        on_idle: Callable[[ClientConnection], None],
        deliver: Deliver | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> HttpMessage:
        """Send a request and return its response; LostError if the connection ends first.

        ``on_idle`` is called with the connection when it can be used again.  ``deliver`` is called
        once the response is complete, or None is known to come, with what makes this return, and
        ``on_sent`` once the request is written.
        """
        self._on_sent = on_sent
        self._response = asyncio.get_running_loop().create_future()
        self._deliver = deliver
        self._delivered = False
        self._found = None
        self._on_idle = on_idle
        self._sent = False
        self._is_head = request.method == "HEAD"
        head = b"%b %b HTTP/1.1\r\n%b" % (
            request.method.encode("latin-1"),
            request.target.encode("latin-1"),
            encoded_headers(request.headers),
        )
        bare = request.body == b"" and request.method in {"GET", "HEAD"}
        body = None if bare else request.body
        writing = self._tasks.create_task(self._write_request(head, body))
        try:
            return await self._response
        except BaseException:
            self.close()
            raise
        finally:
            if not writing.done() and self.closed:
                writing.cancel()

    async def _write_request(self, head: bytes, body: Body | None) -> None:
        try:
            if body is None:  # an empty body would be a body to the Worker
                self._send(head + b"\r\n")
            else:
                await self._write(head, body)
        except LostError as error:
            self._lose(error)
            return
        except Exception as error:  # noqa: BLE001 (of the body, which is somebody else's stream)
            self._lose(LostError(f"the request's body failed: {error}"))
            return
        self._sent = True
        if self._on_sent is not None:
            self._on_sent()
        self._settle()

    def on_status(self, status: bytes) -> None:
        self._reason += status

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reason = b""

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._response is None or self._response.done():
            return
        body: Body = b"" if self._is_head or status in _NO_BODY else self._body()
        response = HttpMessage(
            self._headers,
            body,
            status=status,
            reason=self._reason.decode("latin-1"),
            received=None if self._chunks is None else self._chunks.received,
        )
        self._found = response
        if self._deliver is None:
            self._resolve(response)
        if self._is_head:  # the parser would wait for a body
            self._complete()
            self.close()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if not self._parser.should_keep_alive():
            self.close()
        self._complete()
        self._settle()

    def _complete(self) -> None:
        found, self._found = self._found, None
        if self._deliver is not None and found is not None:
            self._delivered = True
            self._deliver(found, lambda: self._resolve(found))

    def _resolve(self, response: HttpMessage) -> None:
        if self._response is not None and not self._response.done():
            self._response.set_result(response)
            self._settle()

    def _settle(self) -> None:
        """Hand the connection back once request and response are complete."""
        received = self._response is not None and self._response.done()
        ended = self._chunks is None or self._chunks.ended
        if self._sent and received and ended and not self.closed:
            self._response = self._chunks = None
            self._on_idle(self)

    def _lose(self, error: Exception) -> None:
        super()._lose(error)
        if self._deliver is None:
            self._fail(error)
        elif not self._delivered:
            self._delivered = True
            self._deliver(None, lambda: self._fail(error))

    def _fail(self, error: Exception) -> None:
        if self._response is not None and not self._response.done():
            self._response.set_exception(error)


def _head_of(response: HttpMessage) -> bytes:
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

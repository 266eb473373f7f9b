"""Requests of the platform to workerd, one connection of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httptools

from edgesim.isolates.javascript.http import (
    NO_BODY,
    HttpMessage,
    LostError,
    Unread,
    WorkerdConnection,
    encoded_headers,
)
from edgesim.model import Body

Deliver = Callable[[HttpMessage | None, Callable[[], None]], None]


class ClientConnection(WorkerdConnection):
    """A connection to a socket of workerd."""

    def __init__(self, tasks: asyncio.TaskGroup, unread: Unread) -> None:
        super().__init__(unread)
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
        body: Body = b"" if self._is_head or status in NO_BODY else self._body()
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

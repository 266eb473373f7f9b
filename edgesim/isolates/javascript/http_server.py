"""Requests that workerd sends to the platform, one connection of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httptools
import structlog

from edgesim.errors import EdgesimError
from edgesim.isolates.javascript.http import (
    NO_BODY,
    HttpMessage,
    LostError,
    Unread,
    WorkerdConnection,
    head_of,
)
from edgesim.model import Stream

Serve = Callable[[HttpMessage], Awaitable[HttpMessage]]

log = structlog.get_logger()


class ServerConnection(WorkerdConnection):
    """A connection that workerd has opened to the platform."""

    def __init__(self, serve: Serve, tasks: asyncio.TaskGroup, unread: Unread) -> None:
        super().__init__(unread)
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
        self._count_head(len(url))
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
            self._send(head_of(response) + b"\r\n")

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
        head = head_of(response)
        if request.method == "HEAD" or response.status in NO_BODY:
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

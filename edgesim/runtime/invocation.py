"""Platform side of one invocation: its calls, streams and trace."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import urldefrag

import anyio
import structlog

from edgesim.clock import Clock
from edgesim.errors import EdgesimError, PlatformError
from edgesim.isolates.host.driver import Host
from edgesim.isolates.protocol.wire import Call, Failure, Log, Respond, StreamRef
from edgesim.model import Body, HttpRequest, HttpResponse, Stream, read_all
from edgesim.packing import unpacked
from edgesim.runtime.arguments import invalid_header, number_of, request_of
from edgesim.runtime.finished import REPLY_BYTES_MAX
from edgesim.runtime.lineage import Lineage
from edgesim.runtime.trace import Trace

SUBREQUESTS_MAX = 10_000
CONNECTIONS_MAX = 6
"""Maximum requests of one invocation that await response headers at a time; further ones wait."""
FOREIGN = (
    "Cannot perform I/O on behalf of a different request. I/O objects (such as streams, "
    "request/response bodies, and others) created in the context of one request handler cannot be "
    "accessed from a different request's handler."
)
INLINE_BYTES_MAX = 1 << 20
"""Maximum size of a body sent to the isolate as bytes; a larger one stays here, with a handle."""
_STATUS_TEXT = re.compile(r"[\t -~\x80-\xff]*")

Fetch = Callable[[HttpRequest, Lineage], Awaitable[HttpResponse]]
"""Sends a request to a Worker or server; the lineage counts the Workers it came through."""

log = structlog.get_logger()


class Binding(Protocol):
    """Implementation of one attribute of ``env``."""

    counts_as_connection: bool
    """True if a call counts towards CONNECTIONS_MAX."""
    counts_as_subrequest: bool

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        """Run a Call and return its result; PlatformError is raised in the Worker."""


class Invocation(Host):
    """One run of a handler, and the host that its isolate calls."""

    def __init__(
        self,
        worker: str,
        bindings: Mapping[str, Binding],
        outbound: Fetch,
        trace: Trace,
        clock: Clock,
        *,
        lineage: Lineage | None = None,
        subrequests_max: int = SUBREQUESTS_MAX,
    ) -> None:
        self.lineage = lineage or Lineage()
        self.depth = self.lineage.depth
        self.trace = trace
        self.response: HttpResponse | None = None
        self.status: int | None = None
        """HTTP status of the response, once there is one."""
        self.reply: bytes | None = None
        """Its body, unless it is a stream or large."""
        self.responded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.given_up = False
        self.task: asyncio.Task[None] | None = None
        self.cpu_ms = 0.0
        """CPU time, if it was cancelled; else the Done has it."""
        self.outcome = "unknown"
        self.failure: Failure | None = None
        self.data_points = 0
        """Number of data points sent to Analytics Engine."""
        self._worker = worker
        self._bindings = bindings
        self._outbound = outbound
        self._clock = clock
        self._subrequests_left = subrequests_max
        self._streams: dict[int, Stream] = {}
        self._stream_count = 0

    def log(self, log: Log) -> None:
        """Record a console call in the trace."""
        self.trace.log(log.level, log.message, int(log.now * 1000))

    def respond(self, response: Respond) -> None:
        """Send the response; later ones are ignored.  ValueError if it is not a valid response."""
        if self.status is not None:
            return
        name = invalid_header(response.headers)
        if name is not None:
            raise ValueError(f"the response has an invalid header {name[:100]!r}")
        try:
            body = self.take_body(response.body)
        except PlatformError as error:
            raise ValueError(error.message) from error
        text = response.status_text or None
        if text is not None and not _STATUS_TEXT.fullmatch(text):
            raise ValueError(f"the response has an invalid status text {text[:100]!r}")
        self.response = HttpResponse(
            response.status, response.headers, body, text, encoded=response.encoded
        )
        self.status = response.status
        if isinstance(body, bytes) and len(body) <= REPLY_BYTES_MAX:
            self.reply = body
        self._release_caller()

    def take_response(self) -> HttpResponse | None:
        """Return the response and drop it: a slow client must not keep a large body in memory."""
        response, self.response = self.response, None
        return response

    def spent(self, cpu_ms: float) -> None:
        """Record the CPU time of a cancelled invocation."""
        self.cpu_ms = cpu_ms

    def _release_caller(self) -> None:
        if not self.responded.done():
            self.responded.set_result(None)

    def give_up(self) -> None:
        """Cancel the invocation because its client disconnected."""
        self.given_up = True
        if self.task is not None:
            self.task.cancel()

    async def call(self, call: Call) -> Any:
        """Run an isolate's call; a bug in edgesim is logged and raises an internal error there."""
        try:
            return await self._dispatch(call)
        except PlatformError:
            raise
        except EdgesimError as error:
            raise PlatformError(str(error)) from error
        except RecursionError as error:
            raise PlatformError("Maximum call stack size exceeded", "RangeError") from error
        except Exception as error:
            log.exception("internal error", worker=self._worker, binding=call.binding)
            raise PlatformError(f"internal error in {call.binding}.{call.method}") from error

    @cached_property
    def _connections(self) -> anyio.Semaphore:
        return anyio.Semaphore(CONNECTIONS_MAX)

    async def _dispatch(self, call: Call) -> Any:
        match call.binding, call.method:
            case "", "sleepUntil":
                return await anyio.sleep(max(0.0, number_of(call) - self._clock.steady()))
            case "", "read":
                return await self._stream(number_of(call)).read()
            case "", "fetch":
                self.count_subrequest()
                async with self._connections:
                    return await self.fetch_through(self._outbound, call.args)
        binding = self._bindings.get(call.binding)
        if binding is None or binding.counts_as_subrequest:
            self.count_subrequest()
        if binding is None:
            raise PlatformError(f"there is no binding {call.binding!r}", "TypeError")
        async with self._connections if binding.counts_as_connection else nullcontext():
            return await binding.call(call.method, call.args, call.options, self)

    def _stream(self, number: float) -> Stream:
        try:
            return self._streams[int(number)]
        except KeyError:
            raise PlatformError(FOREIGN) from None

    def count_subrequest(self) -> None:
        """Count one subrequest; PlatformError if the invocation has exceeded its limit."""
        self._subrequests_left -= 1
        if self._subrequests_left < 0:
            raise PlatformError("Too many subrequests.")

    async def fetch_through(self, target: Fetch, args: list[Any]) -> dict[str, Any]:
        """Send the isolate's request to ``target`` and return the response in wire form."""
        asked = request_of(args)
        body = self.take_body(asked.body)
        url = urldefrag(asked.url).url
        request = HttpRequest(asked.method, url, asked.headers, body, redirect=asked.redirect)
        response = await target(request, self.lineage.next())
        headers = response.headers
        if response.encoded:  # the length is that of the compressed body
            headers = [each for each in headers if each[0].lower() != "content-length"]
            response.body = unpacked(response.body, response.header("content-encoding"))
        return {
            "status": response.status,
            "statusText": response.status_text,
            "headers": headers,
            "body": await self.give_body(response.body),
            "url": response.url or url,
            "redirected": bool(response.url),
        }

    def take_body(self, body: Any) -> Body:
        """Return the body that the isolate sent as bytes or a handle; PlatformError if invalid.

        A handle can be used once.  A Stream is the body itself, made by the isolate's driver.
        """
        if isinstance(body, Stream):
            return body
        if isinstance(body, StreamRef):
            stream = self._streams.pop(body.id, None)
            if stream is None:
                raise PlatformError(
                    "This ReadableStream is disturbed (has already been read from), and cannot be "
                    "used as a body.",
                    "TypeError",
                )
            return stream
        if body is None or isinstance(body, bytes):
            return body or b""
        raise PlatformError(f"a {type(body).__name__} is not a valid body", "TypeError")

    async def give_body(self, body: Body) -> bytes | StreamRef:
        """Return a body in wire form: bytes up to INLINE_BYTES_MAX, else a handle."""
        if isinstance(body, bytes):
            if len(body) <= INLINE_BYTES_MAX:
                return body
            body = Stream(_once(body), len(body))
        elif body.length is not None and body.length <= INLINE_BYTES_MAX:
            return await read_all(body)
        return self.keep(body)

    def keep(self, stream: Stream) -> StreamRef:
        """Keep a stream here and return a handle for it."""
        self._stream_count += 1
        self._streams[self._stream_count] = stream
        return StreamRef(self._stream_count, stream.length)

    async def close(self) -> None:
        """Close unread streams, and release the caller that waits for a response."""
        self._release_caller()
        for stream in self._streams.values():
            await stream.aclose()
        self._streams.clear()


async def _once(body: bytes) -> Any:
    for start in range(0, len(body), INLINE_BYTES_MAX):
        yield body[start : start + INLINE_BYTES_MAX]

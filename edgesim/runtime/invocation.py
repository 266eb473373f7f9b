"""Platform side of one invocation: its calls, streams and trace."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import urldefrag

import anyio
import structlog

from edgesim.clock import Clock
from edgesim.errors import EdgesimError, PlatformError
from edgesim.isolates.host.budget import MemoryHolder, budget_here
from edgesim.isolates.host.driver import Drained, Host
from edgesim.isolates.host.held_body import HeldBody
from edgesim.isolates.protocol.wire import Call, Failure, Log, Respond, StreamRef
from edgesim.model import Body, HttpRequest, HttpResponse, Stream, read_all
from edgesim.packing import unpacked
from edgesim.runtime.arguments import invalid_header, number_of, request_of
from edgesim.runtime.finished import REPLY_BYTES_MAX
from edgesim.runtime.lineage import Lineage
from edgesim.runtime.spans import InvocationSpans
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
READ_BYTES = 1 << 18
"""Memory that one read of a stream may need."""
SMALL_BYTES = 1 << 15
"""Size of a reply up to which it needs no room."""
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
        spans: InvocationSpans | None = None,
        subrequests_max: int = SUBREQUESTS_MAX,
    ) -> None:
        self.lineage = lineage or Lineage()
        self.depth = self.lineage.depth
        self.spans = spans
        self.trace = trace
        self.response: HttpResponse | None = None
        self.status: int | None = None
        """HTTP status of the response, once there is one."""
        self.reply: bytes | None = None
        """Its body, unless it is a stream or large."""
        self.responded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.given_up = False
        self.evicted = False
        """True if it was given up because it occupied too much memory."""
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
        self._drained: Drained = _at_once

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
        if self.spans is not None:
            self.spans.responded()
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
        """Cancel the invocation, because its client disconnected or it was evicted."""
        self.given_up = True
        if self.task is not None:
            self.task.cancel()

    async def call(self, call: Call) -> Any:
        """Run an isolate's call; a bug in edgesim is logged and raises an internal error there."""
        try:
            if self.spans is None:
                return await self._dispatch(call)
            return await self.spans.observe(call, self._dispatch)
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
                stream = self._stream(number_of(call))
                async with self._replying(READ_BYTES):
                    return await stream.read()
            case "", "fetch":
                self.count_subrequest()
                await self.memory.room()
                async with self._connections:
                    return await self.fetch_through(self._outbound, call.args)
        binding = self._bindings.get(call.binding)
        if binding is None or binding.counts_as_subrequest:
            self.count_subrequest()
        if binding is None:
            raise PlatformError(f"there is no binding {call.binding!r}", "TypeError")
        await self.memory.room()  # for what it may bring
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

    async def give_body(self, body: Body, *, counted: bool = True) -> bytes | StreamRef:
        """Return a body in wire form: bytes up to INLINE_BYTES_MAX, else a handle.

        ``counted``: it is in memory for this invocation only.
        """
        size = len(body) if isinstance(body, bytes) else body.length
        if size is not None and size <= INLINE_BYTES_MAX:
            if isinstance(body, bytes) and (not counted or size < SMALL_BYTES):
                return body
            async with self._replying(size):
                return await read_all(body)
        if isinstance(body, bytes):
            body = HeldBody(self._worker, body) if counted else Stream(_once(body), size)
        elif isinstance(body, HeldBody):
            body.move_to(self._worker)
        return self.keep(body)

    @asynccontextmanager
    async def _replying(self, size: int) -> AsyncIterator[None]:
        """Make room for a reply, which is the isolate's to read after this turn of the loop."""
        if size < SMALL_BYTES:
            yield
            return
        await self._drained()
        await self.memory.room(size)
        try:
            yield
        finally:
            asyncio.get_running_loop().call_soon(self.memory.drop, size)

    def paced_by(self, drained: Drained) -> None:
        """See Host."""
        self._drained = drained

    def keep(self, stream: Stream) -> StreamRef:
        """Keep a stream here and return a handle for it."""
        self._stream_count += 1
        self._streams[self._stream_count] = stream
        return StreamRef(self._stream_count, stream.length)

    @cached_property
    def memory(self) -> MemoryHolder:
        """Memory of the platform that the invocation's calls occupy."""
        return budget_here().holder(self._worker, self._evict)

    def _evict(self) -> None:
        self.evicted = True
        self.give_up()

    @asynccontextmanager
    async def collecting(self, body: Body, bytes_max: int) -> AsyncIterator[Body]:
        """A body of which up to ``bytes_max`` are collected in memory, counted until the end."""
        if isinstance(body, bytes):
            yield body
            return
        size = 0

        async def counted(body: Stream) -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in body:
                if body.length is None and size < bytes_max:
                    await self.memory.room(len(chunk))
                    size += len(chunk)
                yield chunk

        try:
            if body.length is not None:
                wanted = min(body.length, bytes_max)
                await self.memory.room(wanted)
                size = wanted
            yield Stream(counted(body), body.length)
        finally:
            self.memory.drop(size)

    async def close(self) -> None:
        """Close unread streams, and release the caller that waits for a response."""
        self._release_caller()
        if "memory" in self.__dict__:
            self.memory.close()
        for stream in self._streams.values():
            await stream.aclose()
        self._streams.clear()


async def _at_once() -> None:
    """The wait for an isolate that cannot leave replies unread."""


async def _once(body: bytes) -> Any:
    for start in range(0, len(body), INLINE_BYTES_MAX):
        yield body[start : start + INLINE_BYTES_MAX]

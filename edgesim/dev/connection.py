"""HTTP/1 client connections: parsing by httptools, limits, timeouts, response order.

uvicorn accepts connections and closes them at shutdown. This class replaces its protocol class,
which limits neither header size nor waiting time, and passes on requests that proxies may parse
differently. A refused request gets one response, then its connection is closed.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any, Literal
from urllib.parse import unquote

import httptools
import structlog
from uvicorn.config import Config
from uvicorn.server import ServerState

from edgesim.dev.edge import TARGET
from edgesim.dev.exchange import Exchange
from edgesim.dev.heads import Refusal, is_for_operator, problem_of, target_of
from edgesim.dev.room import Room

PIPELINE_MAX = 16
"""Maximum requests that wait behind another on one connection; beyond it the request is refused."""
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
EARLY_SECONDS = 0.002
"""A timer may fire this long before its time: uvloop counts whole milliseconds."""
_ASGI = {"version": "3.0", "spec_version": "2.3"}
_NO_ROOM = Refusal(503, "the server has no room for another connection; try again")
_TOO_SLOW = Refusal(408, "the request took too long to arrive")

Phase = Literal["", "busy", "head", "idle", "body", "write", "linger"]
"""Phase of a connection: it waits for its Worker ("busy") or its client (the others)."""

log = structlog.get_logger()


class HttpConnection(asyncio.Protocol):
    """One client connection; its requests are answered one at a time."""

    def __init__(
        self,
        room: Room,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._app = config.loaded_app
        self._server = server_state
        self._loop = _loop or asyncio.get_running_loop()
        self._room = room
        self._limits = room.limits
        self._seconds = room.seconds
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._active: Exchange | None = None
        self._newest: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._refusal: Refusal | None = None
        self._stopped = False
        """True if no further request is read; remaining input is dropped."""
        self._closing = False
        self._for_operator = False
        self._in_head = False
        self._in_line = True
        """True if the next data starts or continues a request line."""
        self._escapes = False
        """True if the present data began with (a part of) the request line that is parsed."""
        self._line = b""
        self._head_size = 0
        self._since_body = 0
        """Bytes received since the last part of a body: chunk sizes, extensions and trailers."""
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._headers_size = 0
        self._expects_continue = False
        self._reading = True
        self._writable = asyncio.Event()
        self._writable.set()
        self._phase: Phase = ""
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = inf
        self._received = 0
        self._written = 0
        self._progress = 0

    # --- the transport ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place in the room, or refuse the connection."""
        self._transport = transport
        self._server.connections.add(self)  # type: ignore[arg-type]
        self._client = transport.get_extra_info("peername")
        self._address = transport.get_extra_info("sockname")
        place = self._room.enter(self)
        if place is None:
            transport.abort()
            return
        self._for_operator = place == "operator"
        if place == "refused":
            self._refuse(_NO_ROOM)
        self.adjust()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection, closed by the client or by edgesim."""
        self._server.connections.discard(self)
        self._room.leave(self)
        if self._timer is not None:
            self._timer.cancel()
        self._stopped = True
        for exchange in (self._active, *self._queue):
            if exchange is not None:
                exchange.disconnect()
        self._queue.clear()
        self._writable.set()
        self._active = self._newest = None
        del self._parser  # it refers to this object

    def data_received(self, data: bytes) -> None:
        """Parse the data; the parser invokes the callbacks below."""
        if self._stopped:
            return
        self._received += len(data)
        self._since_body += len(data)
        self._escapes = self._in_line
        try:
            self._parser.feed_data(self._escaped(data) if self._in_line else data)
        except httptools.HttpParserUpgrade:
            self._stopped = True  # answered as an ordinary request; the rest is not HTTP/1
        except httptools.HttpParserError as error:
            if not self._stopped:
                status = 501 if "method" in str(error) else 400
                self._refuse(Refusal(status, f"the request is not valid HTTP/1.1: {error}"))
        if self._in_head and not self._stopped:
            self._head_size += len(data)
            if self._head_size > self._limits.url_bytes + self._limits.head_bytes:
                self._refuse(Refusal(431, "the headers are over 128 KB"))
        elif self._since_body > self._limits.head_bytes and self._is_in_body():
            self._refuse(Refusal(431, "the trailers are over 128 KB"))
        self.adjust()

    def _is_in_body(self) -> bool:
        # The parser keeps an incomplete trailer, and copies all of it for each part that arrives.
        return not self._stopped and self._newest is not None and self._newest.more_body

    def _escaped(self, data: bytes) -> bytes:
        """Percent-encode non-ASCII bytes of a request line, which httptools rejects."""
        line, newline, rest = data.partition(b"\n")
        self._line += line
        self._in_line = not newline
        if line.isascii():
            return data
        escaped = _NOT_ASCII.sub(lambda found: b"%%%02X" % found[0][0], line)
        return escaped + newline + rest

    def pause_writing(self) -> None:
        """Pause the response: the client reads more slowly than it is produced."""
        self._writable.clear()
        self.adjust()

    def resume_writing(self) -> None:
        """Resume the response: the client has read most of the buffer."""
        self._writable.set()
        self.adjust()

    # --- the parser ---

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._in_head = True
        if not self._escapes:  # it follows another in the same data: its line is not escaped
            self._in_line = False
        self._head_size = self._headers_size = 0
        self._url = b""
        self._headers = []
        self._expects_continue = False

    def on_url(self, url: bytes) -> None:
        """Add a part of the request's target."""
        if self._stopped:
            return
        self._url += url
        if len(self._url) > self._limits.url_bytes:
            self._refuse(Refusal(414, "the URL is over 16 KB"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a complete header; trailers of a chunked body are dropped."""
        if self._stopped or not self._in_head:
            return
        self._headers_size += len(name) + len(value) + 4
        lower = name.lower()
        self._headers.append((lower, value))
        if lower == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        if self._headers_size > self._limits.head_bytes:
            self._refuse(Refusal(431, "the headers are over 128 KB"))

    def on_headers_complete(self) -> None:
        """Check the complete head; answer the request, or queue it."""
        self._in_head = False
        self._since_body = 0
        if self._stopped:
            return
        if not self._line.isascii():
            self._url = self._line.partition(b" ")[2].rpartition(b" ")[0]
        version = self._parser.get_http_version()
        method = self._parser.get_method().decode("ascii")
        refusal = problem_of(version, method, self._url, self._headers)
        if refusal is None and self._for_operator and not is_for_operator(self._url):
            refusal = _NO_ROOM
        if refusal is None and len(self._queue) >= PIPELINE_MAX:
            refusal = Refusal(503, "too many requests at once on one connection")
        if refusal is not None:
            self._refuse(refusal)
            return
        self._newest = Exchange(
            self,
            self._scope(version, method),
            keep_alive=version == "1.1"
            and self._parser.should_keep_alive()
            and not self._parser.should_upgrade(),
            expects_continue=self._expects_continue,
        )
        if self._active is None:
            self._begin(self._newest)
        else:
            self._queue.append(self._newest)

    def on_body(self, data: bytes) -> None:
        """Add a part of the newest request's body."""
        self._since_body = 0
        if not self._stopped and self._newest is not None:
            self._newest.feed(data)

    def on_message_complete(self) -> None:
        """Mark the newest request as complete."""
        self._in_line = True
        self._escapes = False
        self._line = b""
        if self._stopped or self._newest is None:
            return
        self._newest.end_body()
        self._stopped = not self._newest.keep_alive

    def _scope(self, version: str, method: str) -> dict[str, Any]:
        target = target_of(self._url)
        path, _, query = target.partition(b"?")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self._address[:2] if self._address else None,
            "client": self._client[:2] if self._client else None,
            "scheme": "http",
            "root_path": "",
            "headers": self._headers,
            "method": method,
            "path": unquote(path.decode()) if b"%" in path else path.decode(),
            "raw_path": path,
            "query_string": query,
            "extensions": {TARGET: target},
        }

    # --- exchanges ---

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Headers added to every response."""
        return self._server.default_headers

    def _begin(self, exchange: Exchange) -> None:
        self._active = exchange
        task = self._loop.create_task(exchange.run(self._app))
        task.add_done_callback(self._server.tasks.discard)
        self._server.tasks.add(task)

    def write(self, data: bytes) -> None:
        """Write to the client, unless the connection is closing."""
        if self._closing or self._transport.is_closing():
            return
        self._written += len(data)
        self._transport.write(data)

    @property
    def is_writable(self) -> bool:
        """True if the client has read most of the output."""
        return self._writable.is_set()

    async def writable(self) -> None:
        """Wait until the client has read most of the output."""
        if not self._writable.is_set():
            await self._writable.wait()

    def keeps(self, size: int) -> None:
        """Count a response held in memory until the client has read it; size 0 releases it."""
        self._room.keeps(self, size)

    def finish(self, exchange: Exchange) -> None:
        """Finish a complete response: begin the next request, or close the connection."""
        self._server.total_requests += 1
        self._active = None
        if not exchange.keep_alive:
            self._close()
        elif self._queue:
            self._begin(self._queue.popleft())
        elif self._refusal is not None:
            self._refuse(self._refusal)
        elif self._stopped:
            self._close()
        self.adjust()

    def fail(self, exchange: Exchange) -> None:
        """Fail an incomplete response: send 500, or abort the connection if it has begun."""
        exchange.disconnect()
        if exchange.on_wire:
            self._transport.abort()
        else:
            self._answer(Refusal(500, "Internal Server Error"))

    def shutdown(self) -> None:
        """Close after the current response (called by uvicorn)."""
        self._stopped = True
        self._queue.clear()
        if self._active is None:
            self._transport.close()
        else:
            self._active.keep_alive = False

    def _refuse(self, refusal: Refusal) -> None:
        """Send the refusal after the earlier requests' responses, and close."""
        self._stopped = True
        self._refusal = refusal
        current = self._active
        if current is not None and current.more_body and current is self._newest:
            current.disconnect()  # the invalid body is its own
            if current.on_wire:
                self._transport.abort()
                return
        elif current is not None:
            if self._queue and self._newest is not None and self._newest.more_body:
                self._queue.pop()  # the request with the invalid body
            return
        self._answer(refusal)

    def _answer(self, refusal: Refusal) -> None:
        log.debug("request refused", status=refusal.status, reason=refusal.reason)
        self.write(refusal.response())
        self._close()

    def _close(self) -> None:
        """Close after the response.

        While the client still sends, only the output is closed: a reset could discard the response.
        """
        if self._transport.is_closing() or self._closing:
            return
        self._stopped = self._closing = True
        unread = self._refusal is not None or (self._newest is not None and self._newest.more_body)
        if unread:
            self._transport.write_eof()
            self.adjust()
        else:
            self._transport.close()

    # --- waiting ---

    def adjust(self) -> None:
        """Pause or resume reading, and restart the timer if the phase has changed."""
        if self._transport.is_closing():
            return
        newest = self._newest
        full = newest is not None and newest.is_full and not newest.complete
        reading = self._closing or not (self._queue or full)
        if reading != self._reading:
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()
        phase = self._phase_now(newest)
        if phase != self._phase:
            self._phase = phase
            (self._room.busy if phase == "busy" else self._room.waits)(self)
            self._watch()

    def _phase_now(self, newest: Exchange | None) -> Phase:
        if not self._writable.is_set():
            return "write"
        if self._closing:
            return "linger"
        if newest is not None and newest.more_body and not newest.disconnected:
            if newest.complete:
                return "linger"
            return "body" if self._reading else "busy"
        if self._active is not None:
            return "busy"
        return "head" if self._in_head or newest is None else "idle"

    def _watch(self) -> None:
        """Set the deadline of this phase.

        A timer that is set stays if it fires before: setting one for each request costs more.
        """
        if self._phase == "busy":
            self._deadline = inf
            return
        self._progress = self._taken()
        self._deadline = self._loop.time() + self._seconds[self._phase]
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._look)

    def _taken(self) -> int:
        """Bytes that the client has sent, or in phase "write" has read."""
        if self._phase == "write":
            return self._written - self._transport.get_write_buffer_size()
        return self._received

    def _look(self) -> None:
        """The timer has expired; at the phase's deadline, close unless the client made progress."""
        self._timer = None
        if self._transport.is_closing() or self._deadline == inf:
            return
        if self._loop.time() < self._deadline - EARLY_SECONDS:
            self._timer = self._loop.call_at(self._deadline, self._look)
            return
        moved = self._taken() - self._progress
        if self._phase in {"body", "write"} and moved >= self._limits.bytes_least:
            self._watch()
        else:
            self._give_up()

    def evict(self) -> None:
        """Close to make room for a new connection."""
        if not self._transport.is_closing():
            self._give_up(_NO_ROOM)

    def _give_up(self, refusal: Refusal = _TOO_SLOW) -> None:
        """Close without waiting; first send the refusal if no response has begun."""
        unanswered = self._active is None or (
            self._active is self._newest and not self._active.on_wire
        )
        if unanswered and not self._stopped and (self._in_head or self._phase == "body"):
            if self._active is not None:
                self._active.disconnect()
            self.write(refusal.response())
            self._transport.close()
        elif self._phase in {"idle", "head"}:
            self._transport.close()
        else:
            self._transport.abort()


def connections(room: Room) -> Callable[..., HttpConnection]:
    """Create the protocol factory for uvicorn."""

    def connect(**arguments: Any) -> HttpConnection:
        return HttpConnection(room, **arguments)

    return connect

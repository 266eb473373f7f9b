"""Pass ASGI requests to Workers and return their responses.

Reaching a Worker takes one dict look-up; routing and middleware are only for /cdn-cgi/, a prefix
that no Worker can own on the real platform.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import anyio
import msgspec
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgesim.dev.bodies import SMALL_BYTES_MAX, Bodies, BodyTooLargeError, NoRoomError
from edgesim.dev.edge import Edge, host_of
from edgesim.dev.exchange import EXCHANGE
from edgesim.dev.record import Recorder
from edgesim.errors import EdgesimError, PlatformError
from edgesim.isolates.host.held_body import HeldBody
from edgesim.model import HttpResponse, iterate
from edgesim.packing import packed
from edgesim.runtime.ingest import PATH as INGEST_PATH
from edgesim.runtime.routing import named_by
from edgesim.simulator import Simulator
from edgesim.telemetry.exporter import Exporter

LOOK_SECONDS = 0.5
"""Polling interval; older requests are monitored for client disconnect, from the second poll on.

Most requests finish earlier, and monitoring each from its start would cost a task.
"""
HOLD_SECONDS = 30.0
"""Maximum wait of a request under backpressure of earlier ones; then it is answered with 503."""
HOLD_LOOK_SECONDS = 0.005
_FRAMING = {
    *("connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer"),
    *("transfer-encoding", "upgrade"),
}
"""Worker headers that the front replaces by its own framing."""
_NULL_BODY = {204, 205, 304}
ADMIN_PREFIX = "/cdn-cgi/"
API_PREFIX = "/client/v4/accounts/"
_APIS = {"analytics_engine", "queues"}

log = structlog.get_logger()


class _NoWorkerError(Exception):
    """No Worker answers under the request's host."""


class _RequestInProgress:
    """A request in progress."""

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.looks = 0
        self.gone = False
        self._task = asyncio.current_task()

    def give_up(self) -> None:
        """Cancel the request: its client has disconnected."""
        self.gone = True
        assert self._task is not None
        self._task.cancel()


class Front:
    """The ASGI application; ``simulator`` is swapped when the configuration changes.

    ``loopback``: the listener is bound to loopback addresses only. ``explained``: clients see the
    traceback of a handler's exception.
    """

    def __init__(self, *, loopback: bool = True, explained: bool = False) -> None:
        self.explained = explained
        self.edge = Edge(loopback=loopback)
        self._bodies = Bodies()
        self.admin: ASGIApp | None = None
        self.api: ASGIApp | None = None
        self.recorder: Recorder | None = None
        self.exporter: Exporter | None = None
        self.waiting = 0
        self.refused = 0
        self._turns: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)
        """The queue of each Worker's waiting requests: one Worker's never hold those of another."""
        self._asked: dict[_RequestInProgress, None] = {}
        self._simulator: Simulator | None = None
        self._available = anyio.Event()

    async def simulator(self) -> Simulator:
        """The current Simulator; waits while it is being replaced."""
        while self._simulator is None:
            await self._available.wait()
        return self._simulator

    def inspector_ports(self) -> dict[str, int]:
        """The ports of the running Workers' debuggers, by Worker."""
        return {} if self._simulator is None else self._simulator.workers.inspector_ports()

    def failing_sinks(self) -> dict[str, str]:
        """The problem of each sink that cannot write now, by name."""
        return {} if self._simulator is None else self._simulator.primitives.failing_sinks()

    @property
    def serving(self) -> bool:
        """True if there is a Simulator now."""
        return self._simulator is not None

    def show(self, simulator: Simulator | None) -> None:
        """Serve with this Simulator from now on; None makes requests wait."""
        self._simulator = simulator
        if simulator is not None:
            proxies = simulator.project.account.server.trusted_proxies
            self.edge = Edge(proxies, loopback=self.edge.loopback)
            self._available.set()
        else:
            self._available = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        if scope["path"].startswith(INGEST_PATH):
            await self._serve(scope, receive, send)  # public, as the platform's endpoint
        elif f"{scope['path']}/".startswith(ADMIN_PREFIX) and self.admin is not None:
            await self.admin(scope, receive, send)
        elif self.api is not None and _is_for_api(scope):
            await self.api(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await self._room(scope):  # before reading the body, which stays with the client
            await send_response(_overloaded(), scope, send)
            return
        first = await receive()
        if _is_small(first):  # the usual case: it needs no budget, and has arrived with its head
            await self._serve_with(first.get("body", b""), scope, receive, send)
            return
        try:
            async with self._bodies.read(receive, first) as body:
                await self._serve_with(body, scope, receive, send)
        except ConnectionResetError:
            return  # the client disconnected while sending
        except BodyTooLargeError:
            text = "error code: 413, the request body is over 100 MB"
            await send_response(_plain(413, text), scope, send)
        except NoRoomError:
            text = "error code: 503, too many large request bodies at once; try again"
            response = _plain(503, text)
            response.headers.append(("retry-after", "10"))
            await send_response(response, scope, send)

    async def _serve_with(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _RequestInProgress(receive)
        self._asked[asked] = None
        try:
            await send_response(await self._answer(scope, body), scope, send)
        except asyncio.CancelledError:
            if not asked.gone:
                raise
        finally:
            del self._asked[asked]

    async def _room(self, scope: Scope) -> bool:
        """Wait until the request's Worker may get one more; False on timeout.

        Requests for the same Worker wait in order of arrival.
        """
        simulator = await self.simulator()
        if not self.waiting and simulator.has_room:
            return True  # the usual case, without routing the request twice
        worker = self._worker_that_needs_room(simulator, scope)
        if worker is None:
            return True
        turn = self._turns[worker]
        if not turn.locked() and simulator.has_room_for(worker):
            return True
        self.waiting += 1
        try:
            with anyio.move_on_after(HOLD_SECONDS):
                async with turn:
                    # Ask the current Simulator each time: a reload may replace it.
                    while not (await self.simulator()).has_room_for(worker):  # noqa: ASYNC110 (no event announces room)
                        await anyio.sleep(HOLD_LOOK_SECONDS)
                return True
        finally:
            self.waiting -= 1
        self.refused += 1
        return False

    def _worker_that_needs_room(self, simulator: Simulator, scope: Scope) -> str | None:
        """The request's Worker; None if it is for a stream, which limits itself, or for nobody."""
        request = self.edge.request(scope, b"", {})
        if simulator.ingest.target_of(request.url) is not None:
            return None
        try:
            return self._worker_of(simulator, scope, request.url) or simulator.project.entry
        except _NoWorkerError:
            return None

    async def watch(self) -> None:
        """Cancel requests whose clients have disconnected; runs until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                await anyio.sleep(LOOK_SECONDS)
                for asked in self._asked:
                    if asked.looks == 1:
                        tasks.start_soon(self._give_up_when_gone, asked)
                    asked.looks += 1

    async def _give_up_when_gone(self, asked: _RequestInProgress) -> None:
        while (await asked.receive())["type"] != "http.disconnect":
            pass
        if asked in self._asked:  # otherwise it only means that the response is complete
            asked.give_up()

    async def _answer(self, scope: Scope, body: bytes) -> HttpResponse:
        if not await self._room(scope):
            return _overloaded()
        simulator = await self.simulator()
        request = self.edge.request(scope, body, simulator.cf)
        if (stream := simulator.ingest.target_of(request.url)) is not None:
            if self.recorder is not None:
                url = f"http://localhost{INGEST_PATH}{stream}"
                self.recorder.add(msgspec.structs.replace(request, url=url), None)
            return await simulator.ingest.respond(stream, request)
        try:
            name = self._worker_of(simulator, scope, request.url)
        except _NoWorkerError as error:
            return _plain(404, str(error))
        if self.recorder is not None:
            self.recorder.add(request, name or None)
        return await simulator.fetch(request, name or None, explained=self.explained)

    def _worker_of(self, simulator: Simulator, scope: Scope, url: str) -> str:
        """The Worker that the request names; "" for the entry Worker; _NoWorkerError for none."""
        name, _ = named_by(host_of(scope))
        if name and self.edge.is_direct(scope):
            if name not in simulator.workers:
                known = ", ".join(simulator.workers)
                raise _NoWorkerError(f"there is no Worker named {name!r}; known: {known}")
            return name
        # One port serves both schemes, so the scheme of a route is ignored here.
        target = simulator.router.routed(url, any_scheme=True)
        if target is not None:
            return target.worker
        if name and name != simulator.project.entry:
            raise _NoWorkerError("error code: 404, no Worker has a route for this host")
        return name


def _is_small(message: Message) -> bool:
    """True for a whole body, in one message, that does not count against the budget."""
    return (
        message["type"] == "http.request"
        and not message.get("more_body", False)
        and len(message.get("body", b"")) <= SMALL_BYTES_MAX
    )


def _is_for_api(scope: Scope) -> bool:
    """True if the request is for the account's API, unless its host names a Worker.

    On the platform the API has its own host.
    """
    path: str = scope["path"]
    if not path.startswith(API_PREFIX):
        return False
    after_account = path.removeprefix(API_PREFIX).partition("/")[2]
    named, _ = named_by(host_of(scope))
    return after_account.partition("/")[0] in _APIS and not named


async def send_response(response: HttpResponse, scope: Scope, send: Send) -> None:
    """Send a response; a stream is sent as it is produced.

    A stream that fails, or whose length differs from its content-length, aborts the connection, so
    that the client does not take the part for the whole.
    """
    exchange = scope["extensions"].get(EXCHANGE)
    body = response.body
    if isinstance(body, HeldBody):
        body = body.take()  # counted with what clients have not read, from here on
    if body and not response.encoded and response.status not in _NULL_BODY:
        body = packed(body, response.header("content-encoding"))
    length = len(body) if isinstance(body, bytes) else body.length
    lower = [(name.lower(), value) for name, value in response.headers]
    headers = [
        (name.encode("latin-1"), value.encode()) for name, value in lower if name not in _FRAMING
    ]
    if scope["method"] == "HEAD":  # the length of the body that a GET would return
        own = response.header("content-length") or ""
        length = int(own) if own.isascii() and own.isdigit() else length
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    if (
        exchange is not None
        and isinstance(body, bytes)
        and exchange.respond(response.status, response.status_text, headers, body)
    ):
        return
    start = {"type": "http.response.start", "status": response.status, "headers": headers}
    await send(start if response.status_text is None else start | {"reason": response.status_text})
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": body})
        return
    try:
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        async for chunk in iterate(body):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    except (EdgesimError, PlatformError, ValueError) as error:
        log.error("response cut short", url=scope["path"], error=str(error))
    finally:
        await body.aclose()


def _overloaded() -> HttpResponse:
    answer = _plain(503, "error code: 503, too much of earlier requests is unfinished")
    answer.headers.append(("retry-after", "10"))
    return answer


def _plain(status: int, text: str) -> HttpResponse:
    return HttpResponse(status, [("content-type", "text/plain; charset=UTF-8")], text.encode())

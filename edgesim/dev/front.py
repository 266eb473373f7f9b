"""From an ASGI request to a Worker and back.

The way to a Worker is one dict look-up long: routing and middleware are for /cdn-cgi/, a prefix
that no Worker can own on the real platform.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from edgesim.dev.record import Recorder
from edgesim.model import Body, HttpRequest, HttpResponse, iterate
from edgesim.runtime.routing import named_by
from edgesim.simulator import Simulator

LOOK_SECONDS = 0.5
"""A request that is still there at the second look is given up when its client goes.

Most are over before; to watch every one from its beginning would cost each of them a task.
"""
HOLD_SECONDS = 30.0
"""How long a request waits while too much of earlier ones is unfinished; 503 after it."""
HOLD_LOOK_SECONDS = 0.005
BODY_BYTES_MAX = 100_000_000
"""The platform's request body limit on its lower plans; 413 above."""
ADMIN_PREFIX = "/cdn-cgi/"
API_PREFIX = "/client/v4/accounts/"


class _Asked:
    """A request that is being answered."""

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.looks = 0
        self.gone = False
        self._task = asyncio.current_task()

    def give_up(self) -> None:
        """There is nobody to answer."""
        self.gone = True
        assert self._task is not None
        self._task.cancel()


class Front:
    """The ASGI application; ``simulator`` is swapped when the configuration changes."""

    def __init__(self) -> None:
        self.admin: ASGIApp | None = None
        self.api: ASGIApp | None = None
        self.recorder: Recorder | None = None
        self.waiting = 0
        self.refused = 0
        self._turn = anyio.Lock()
        self._asked: dict[_Asked, None] = {}
        self._simulator: Simulator | None = None
        self._available = anyio.Event()

    async def simulator(self) -> Simulator:
        """The current Simulator; waits while one is being replaced."""
        while self._simulator is None:
            await self._available.wait()
        return self._simulator

    @property
    def serving(self) -> bool:
        """Whether there is a Simulator now."""
        return self._simulator is not None

    def show(self, simulator: Simulator | None) -> None:
        """Serve with this one from now on; None lets requests wait."""
        self._simulator = simulator
        if simulator is not None:
            self._available.set()
        else:
            self._available = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        if scope["path"].startswith(ADMIN_PREFIX) and self.admin is not None:
            await self.admin(scope, receive, send)
        elif self.api is not None and _is_for_api(scope):
            await self.api(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await self._room():  # before its body: that waits with the client
            await send_response(_overloaded(), send)
            return
        try:
            body = await _read_body(receive)
        except ConnectionResetError:
            return  # the client went away in the middle of its request
        asked = _Asked(receive)
        self._asked[asked] = None
        try:
            await send_response(await self._answer(scope, body), send)
        except asyncio.CancelledError:
            if not asked.gone:
                raise
        finally:
            del self._asked[asked]

    async def _room(self) -> bool:
        """Wait until there is room for one more request, in order of arrival; False if in vain."""
        if not self._turn.locked() and (await self.simulator()).has_room:
            return True
        self.waiting += 1
        try:
            with anyio.move_on_after(HOLD_SECONDS):
                async with self._turn:
                    # Asked of the current Simulator each time: a reload puts another in its place.
                    while not (await self.simulator()).has_room:  # noqa: ASYNC110 (nobody announces it)
                        await anyio.sleep(HOLD_LOOK_SECONDS)
                return True
        finally:
            self.waiting -= 1
        self.refused += 1
        return False

    async def watch(self) -> None:
        """Give up requests whose clients have gone, for ever."""
        async with anyio.create_task_group() as tasks:
            while True:
                await anyio.sleep(LOOK_SECONDS)
                for asked in self._asked:
                    if asked.looks == 1:
                        tasks.start_soon(self._give_up_when_gone, asked)
                    asked.looks += 1

    async def _give_up_when_gone(self, asked: _Asked) -> None:
        while (await asked.receive())["type"] != "http.disconnect":
            pass
        if asked in self._asked:  # otherwise it only means that the answer is complete
            asked.give_up()

    async def _answer(self, scope: Scope, body: bytes | None) -> HttpResponse:
        if body is None:
            return _plain(413, "error code: 413, the request body is over 100 MB")
        if not await self._room():
            return _overloaded()
        simulator = await self.simulator()
        request = request_of(scope, body, simulator.cf)
        name, _ = named_by(_host_of(scope))
        if name and name not in simulator.workers:
            known = ", ".join(simulator.workers)
            return _plain(404, f"there is no Worker named {name!r}; known: {known}")
        if not name and simulator.router.has_routes:
            # One port serves both schemes, so a route's own does not count here.
            target = simulator.router.find(request.url, any_scheme=True)
            name = target.worker if target else ""
        if self.recorder is not None:
            self.recorder.add(request, name or None)
        return await simulator.fetch(request, name or None)


def _is_for_api(scope: Scope) -> bool:
    """The API has a host of its own on the platform; here it leaves named Workers theirs."""
    path: str = scope["path"]
    if not path.startswith(API_PREFIX):
        return False
    after_account = path.removeprefix(API_PREFIX).partition("/")[2]
    named, _ = named_by(_host_of(scope))
    return after_account.partition("/")[0] == "queues" and not named


def _host_of(scope: Scope) -> str:
    """The host that was asked for, without its port; "" where none was named."""
    host: bytes = dict(scope["headers"]).get(b"host", b"")
    return host.decode("latin-1").partition(":")[0].lower()


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body; None if it is too large (read to its end, so that the client hears)."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= BODY_BYTES_MAX:
            chunks.append(chunk)
        if not message.get("more_body", False):
            break
    if size > BODY_BYTES_MAX:
        return None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def request_of(scope: Scope, body: Body, cf: dict[str, Any]) -> HttpRequest:
    """The request, with what the edge adds to it."""
    headers = [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
    ]
    given = dict(headers)
    path = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    host = given.get("host", "localhost")
    url = f"{scope['scheme']}://{host}{path}{'?' if query else ''}{query}"
    # What the edge adds to every request; XX is the platform's code for a country it does not know.
    if "cf-connecting-ip" not in given:
        headers.append(("cf-connecting-ip", (scope.get("client") or ("127.0.0.1", 0))[0]))
    if "cf-ipcountry" not in given:
        headers.append(("cf-ipcountry", str(cf.get("country") or "XX")))
    if "x-forwarded-proto" not in given:
        headers.append(("x-forwarded-proto", scope["scheme"]))
    connection = {
        "httpProtocol": f"HTTP/{scope['http_version']}",
        "clientAcceptEncoding": given.get("accept-encoding", ""),
    }
    return HttpRequest(scope["method"], url, headers, body, cf | connection)


async def send_response(response: HttpResponse, send: Send) -> None:
    """Answer with it; a stream goes out as it comes."""
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in response.headers
    ]
    if isinstance(response.body, bytes):
        names = {name for name, _ in headers}
        if b"content-length" not in names:
            headers.append((b"content-length", str(len(response.body)).encode()))
        await _start(response.status, headers, send)
        await send({"type": "http.response.body", "body": response.body})
        return
    await _start(response.status, headers, send)
    async for chunk in iterate(response.body):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _start(status: int, headers: list[tuple[bytes, bytes]], send: Send) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


def _overloaded() -> HttpResponse:
    answer = _plain(503, "error code: 503, too much of earlier requests is unfinished")
    answer.headers.append(("retry-after", "10"))
    return answer


def _plain(status: int, text: str) -> HttpResponse:
    return HttpResponse(status, [("content-type", "text/plain; charset=UTF-8")], text.encode())

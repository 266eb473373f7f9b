"""Run an ASGI application, such as one of FastAPI or Starlette, as the handler of a Worker.

    async def fetch(self, request):
        return await asgi.fetch(app, request, self.env, self.ctx)

The application's lifespan is one request, as on the platform.  A response is sent once its body is
complete.  WebSockets are not supported.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import js

from workers._entrypoint import WorkerEntrypoint, wait_until
from workers._http import Request, Response

Message = dict[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Any]], Any]

ASGI = {"spec_version": "2.0", "version": "3.0"}
WITHOUT_BODY = frozenset({204, 205, 304})

logger = logging.getLogger("asgi")


async def fetch(
    app: App, req: Any, env: Any, ctx: Any = None, *, options: Any = None
) -> js.Response:
    """Return the application's response; its exceptions propagate."""
    if options is not None:
        raise NotImplementedError("options of asgi.fetch are not in edgesim; leave them out")
    request = req if isinstance(req, Request) else Request(req)
    lifespan = _Lifespan(app)
    await lifespan.start()
    try:
        response, running = await _respond(app, request, env, lifespan.state)
    except Exception:
        logger.exception("ASGI request failed")
        await lifespan.end()
        raise
    rest = _rest(running, lifespan)
    if running.done():
        await rest
    else:
        wait_until(rest)
    return response


def entrypoint(app: App, *, options: Any = None) -> type[WorkerEntrypoint]:
    """Return a ``Default`` class that serves the application."""

    class Default(WorkerEntrypoint):
        async def fetch(self, request: Request) -> js.Response:
            return await fetch(app, request, self.env, self.ctx, options=options)

    return Default


async def _respond(
    app: App, request: Request, env: Any, state: Message
) -> tuple[js.Response, "asyncio.Future[Any]"]:
    body = await request.bytes() if request.body else b""
    incoming: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    whole = asyncio.Event()
    start: Message = {}
    parts: list[bytes] = []

    async def receive() -> Message:
        if incoming:
            return incoming.pop()
        await whole.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        elif message["type"] == "http.response.body":
            parts.append(bytes(message.get("body", b"")))
            if not message.get("more_body", False):
                whole.set()

    scope = _scope(request, env) | {"state": dict(state)}
    running = asyncio.ensure_future(app(scope, receive, send))
    answered = asyncio.ensure_future(whole.wait())
    await asyncio.wait({running, answered}, return_when=asyncio.FIRST_COMPLETED)
    if not whole.is_set():
        answered.cancel()
        await running
        raise RuntimeError("The application did not generate a response")
    status = start["status"]
    headers = [(name.decode(), value.decode()) for name, value in start.get("headers", [])]
    content = None if status in WITHOUT_BODY else b"".join(parts)
    return Response(content, status=status, headers=headers).js_object, running


async def _rest(running: "asyncio.Future[Any]", lifespan: "_Lifespan") -> None:
    """Run the application to its end after its response; an exception is logged."""
    try:
        await running
    except Exception:
        logger.exception("Exception in ASGI application after response started")
    await lifespan.end()


def _scope(request: Request, env: Any) -> Message:
    url = urlsplit(request.url)
    return {
        "type": "http",
        "asgi": ASGI,
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "path": unquote(url.path),
        "raw_path": url.path.encode(),
        "query_string": url.query.encode(),
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in request.headers.items()
        ],
        "env": env,
    }


class _Lifespan:
    """ASGI lifespan protocol: start-up and shutdown events for applications that support it."""

    def __init__(self, app: App) -> None:
        self.state: Message = {}
        self._app = app
        self._events: asyncio.Queue[str] = asyncio.Queue()
        self._replies: asyncio.Queue[Message] = asyncio.Queue()

    async def start(self) -> None:
        """Send the start-up event; RuntimeError if the application reports a failure."""
        self._task = asyncio.ensure_future(self._app(self._scope(), self._receive, self._send))
        self._supported = await self._ask("startup")

    async def end(self) -> None:
        """Send the shutdown event."""
        if self._supported:
            await self._ask("shutdown")

    async def _ask(self, phase: str) -> bool:
        """Send an event; return True once it is confirmed, False without lifespan support."""
        self._events.put_nowait(f"lifespan.{phase}")
        reply = asyncio.ensure_future(self._replies.get())
        await asyncio.wait({self._task, reply}, return_when=asyncio.FIRST_COMPLETED)
        if not reply.done():
            reply.cancel()
            if (error := self._task.exception()) is not None:
                logger.debug("no lifespan", exc_info=error)  # the standard allows an exception here
            return False
        if reply.result()["type"].endswith(".failed"):
            problem = reply.result().get("message") or f"ASGI lifespan {phase} failed"
            raise RuntimeError(problem)
        return True

    async def _receive(self) -> Message:
        return {"type": await self._events.get()}

    async def _send(self, message: Message) -> None:
        self._replies.put_nowait(message)

    def _scope(self) -> Message:
        return {"type": "lifespan", "asgi": ASGI, "state": self.state}


def __getattr__(name: str) -> Any:
    """``env``: the Worker's bindings as a FastAPI dependency."""
    if name != "env":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fastapi import Depends, Request  # type: ignore[import-not-found]

    async def bindings(request: Request) -> Any:
        return request.scope["env"]

    return Depends(bindings)

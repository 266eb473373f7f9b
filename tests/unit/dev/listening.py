"""A listener of the front's HTTP protocol in the test's event loop, for any ASGI application."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from edgesim.dev.connection import HttpConnection
from edgesim.dev.room import ListenerLimits, Room


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Reply with the request's method, path and body as JSON."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    seen = {"method": scope["method"], "path": scope["path"], "body": body.decode("latin-1")}
    answer = json.dumps(seen).encode()
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


class Client:
    """A raw TCP client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until(self, end: bytes) -> bytes:
        """Read up to and including ``end``."""
        with anyio.fail_after(60):
            return await self.reader.readuntil(end)

    async def rest(self) -> bytes:
        """Read until the server closes the connection."""
        with anyio.fail_after(60):
            return await self.reader.read()


class Listener:
    """A running listener: its room and port, and clients connected to it."""

    def __init__(self, room: Room, port: int) -> None:
        self.room = room
        self.port = port

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()

    async def ask(self, data: bytes) -> bytes:
        """Send the bytes on a new connection; return everything until the server closes it."""
        async with self.client() as client:
            await client.send(data)
            return await client.rest()


@asynccontextmanager
async def listening(
    app: ASGIApp = echo, limits: ListenerLimits | None = None
) -> AsyncIterator[Listener]:
    """Serve the application until the block ends."""
    room, state = Room(limits or ListenerLimits()), ServerState()
    config = Config(app, log_config=None, access_log=False, ws="none", proxy_headers=False)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: HttpConnection(room, config, state, {}), "127.0.0.1", 0, backlog=1024
    )
    try:
        yield Listener(room, server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        for task in list(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)

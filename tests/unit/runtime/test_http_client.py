"""A Worker's HTTP client with a hostile server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from edgesim.errors import PlatformError
from edgesim.model import HttpRequest, read_all
from edgesim.runtime.http_client import INFORMATIONAL_MAX, HttpClient
from edgesim.runtime.reach import Reach

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def server(answer: bytes) -> AsyncIterator[str]:
    """Serve this reply to each request; yield the URL."""

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            try:
                while True:
                    await stream.receive()
                    await stream.send(answer)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                """The client disconnected."""

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/"
        tasks.cancel_scope.cancel()


async def test_informational_responses_without_end_are_an_error() -> None:
    """Too many informational responses are an error and end the connection."""
    client = HttpClient("main", Reach())
    async with server(HINTS * INFORMATIONAL_MAX + FINAL) as url:
        for _ in range(2):  # on one connection: the count restarts for each response
            response = await client.send(HttpRequest("GET", url, [], b""))
            assert (response.status, await read_all(response.body)) == (200, b"body")
    async with server(HINTS * (INFORMATIONAL_MAX + 1) + FINAL) as url:
        with pytest.raises(PlatformError, match="informational"):
            await client.send(HttpRequest("GET", url, [], b""))
    await client.close()

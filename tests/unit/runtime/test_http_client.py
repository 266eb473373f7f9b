"""A Worker's HTTP client with a hostile server."""

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import ObjectReceiveStream

from edgesim import packing
from edgesim.errors import PlatformError
from edgesim.model import Body, HttpRequest, Stream, iterate, read_all
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


async def test_a_body_that_unpacks_to_a_lot_leaves_turns_to_others() -> None:
    """Between two chunks of a body that is there already, other tasks run."""
    packed = gzip.compress(bytes(20_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    client = HttpClient("main", Reach())
    async with server(head % len(packed) + packed) as url:
        response = await client.send(HttpRequest("GET", url, [], b""))
        assert isinstance(response.body, Stream)
        assert await turns_between_chunks(packing.packed(response.body, "gzip")) == set()
        response = await client.send(HttpRequest("GET", url, [], b""))
        assert await turns_between_chunks(response.body) == set()
    await client.close()


async def turns_between_chunks(body: Body) -> set[int]:
    """The numbers of chunks, but for the last, before which no other task had a turn."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    without, chunks, before = set(), 0, -1
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        async for _ in iterate(body):
            without |= {chunks} if turns == before else set()
            chunks, before = chunks + 1, turns
        tasks.cancel_scope.cancel()
    assert chunks > 20
    return without - {chunks - 1}


@asynccontextmanager
async def recorder() -> AsyncIterator[tuple[str, ObjectReceiveStream[bytes]]]:
    """Read one request of each connection, reply, and close; yield the URL and the requests."""
    seen, requests = anyio.create_memory_object_stream[bytes](10)

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            data = b""
            try:
                while not data.endswith(b"\r\n0\r\n\r\n" if b"chunked" in data else b"end"):
                    data += await stream.receive()
                await stream.send(FINAL)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                """The client gave up."""
            await seen.send(data)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with seen, requests, listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        yield f"http://127.0.0.1:{port}/", requests
        tasks.cancel_scope.cancel()


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def posted(length: int | None, *parts: bytes) -> tuple[bytes, PlatformError | None]:
    """Post a stream; return what the server received, and the client's error."""
    client = HttpClient("main", Reach())
    failed = None
    async with recorder() as (url, requests):
        try:
            await client.send(HttpRequest("POST", url, [], Stream(chunks(*parts), length)))
        except PlatformError as error:
            failed = error
        await client.close()
        with anyio.fail_after(60):
            return (await requests.receive()).lower(), failed


async def test_a_stream_of_known_length_is_sent_with_its_length() -> None:
    """Servers that refuse chunked bodies take it."""
    received, failed = await posted(11, b"begin - ", b"end")
    assert failed is None
    assert b"content-length: 11\r\n" in received
    assert b"transfer-encoding" not in received


async def test_a_stream_of_unknown_length_is_chunked() -> None:
    """It has no length."""
    received, failed = await posted(None, b"begin - ", b"end")
    assert failed is None
    assert b"content-length" not in received
    assert b"transfer-encoding: chunked\r\n" in received


@pytest.mark.parametrize("length", [4, 30])
async def test_a_stream_of_another_length_fails(length: int) -> None:
    """No byte beyond the length leaves: a server would read it as the next request."""
    received, failed = await posted(length, b"four", b"GET /admin HTTP/1.1\r\n\r\n")
    assert failed is not None
    assert "Network connection lost" in failed.message
    assert length > 4 or b"get" not in received

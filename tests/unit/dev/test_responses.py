"""Framing of Workers' responses by the front."""

import pytest

from edgesim.dev.front import send_response
from edgesim.errors import PlatformError
from edgesim.model import HttpResponse, Stream
from tests.unit.dev.listening import listening
from tests.unit.dev.test_connection import GET, LAST, parsed

pytestmark = pytest.mark.anyio


def answering(status=200, headers=(), body=b"12345678"):
    """An application that replies as a Worker; a list is a stream of chunks, length or errors."""

    async def app(scope, receive, send):
        answer = Stream(chunks(*body), length_of(body)) if isinstance(body, list) else body
        await send_response(HttpResponse(status, list(headers), answer), scope, send)

    return app


def length_of(body):
    return body[0] if isinstance(body[0], int) else None


async def chunks(*given):
    for each in given:
        if isinstance(each, Exception):
            raise each
        if isinstance(each, bytes):
            yield each


@pytest.mark.parametrize(
    "headers",
    [
        [("content-length", "3")],
        [("Content-Length", "300")],
        [("content-length", "3"), ("CONTENT-LENGTH", "60")],
        [("content-length", "-1")],
        [("content-length", "abc")],
        [("transfer-encoding", "chunked")],
        [("Transfer-Encoding", "gzip")],
        [("connection", "close, x"), ("keep-alive", "timeout=1")],
        [("upgrade", "h2c"), ("connection", "upgrade")],
    ],
)
@pytest.mark.parametrize("body", [b"12345678", [b"1234", b"5678"], [8, b"12345678"]])
async def test_a_worker_does_not_frame_its_response(headers, body):
    """A Worker's length, encoding and connection headers are dropped; the body arrives whole."""
    async with listening(answering(200, headers, body)) as listener:
        answer = await listener.ask(GET + LAST)
    first, content, rest = parsed(answer, b"GET")
    last, last_content, end = parsed(rest, b"GET")
    assert (content, last_content, end) == (b"12345678", b"12345678", b"")
    assert not any(line.startswith((b"keep-alive", b"upgrade", b"connection")) for line in first)
    assert b"connection: close" in last


@pytest.mark.parametrize("status", [204, 205, 304])
@pytest.mark.parametrize("body", [b"HTTP/1.1 200 OK\r\n\r\n", [b"HTTP/1.1 200 OK\r\n\r\n"]])
async def test_a_body_where_none_may_be_is_dropped(status, body):
    """A body with status 204, 205 or 304 is dropped, so that it is not read as a response."""
    async with listening(answering(status, [("content-length", "19")], body)) as listener:
        answer = await listener.ask(GET + LAST)
    assert answer.count(b"HTTP/1.1") == 2
    assert b"200 OK" not in answer


@pytest.mark.parametrize("body", [b"", b"1234", [b"1234"], [4, b"1234"]])
async def test_head_speaks_of_the_body_of_a_get(body):
    """A response to HEAD keeps the Worker's content-length and has no body."""
    head = LAST.replace(b"GET", b"HEAD")
    async with listening(answering(200, [("content-length", "42")], body)) as listener:
        lines, content, end = parsed(await listener.ask(head), b"HEAD")
    assert b"content-length: 42" in lines
    assert (content, end) == (b"", b"")


@pytest.mark.parametrize(
    "body",
    [
        [b"1234", PlatformError("the stream broke")],
        [9, b"1234"],
        [9, b"1234", PlatformError("the stream broke")],
        [3, b"1234"],
    ],
)
async def test_a_broken_stream_ends_its_connection(body):
    """A stream that fails, or has a wrong length, ends as an incomplete response."""
    async with listening(answering(body=body)) as listener, listener.client() as client:
        await client.send(GET + LAST)
        try:
            answer = await client.rest()
        except ConnectionResetError:
            return
    assert answer.count(b"HTTP/1.1") <= 1
    assert not answer.endswith(b"0\r\n\r\n")
    assert b"content-length: 9" in answer or b"chunked" in answer or b" 500 " in answer


async def test_text_beyond_ascii_in_a_header():
    """Non-ASCII text in a header is sent as UTF-8."""
    async with listening(answering(200, [("x", "café"), ("y", "日本")])) as listener:
        lines, _, _ = parsed(await listener.ask(LAST), b"GET")
    assert "x: café".encode() in lines
    assert "y: 日本".encode() in lines

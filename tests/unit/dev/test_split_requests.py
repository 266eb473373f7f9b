"""Pipelined requests that arrive in parts: bytes beyond ASCII do not move a request's borders."""

import json
import re

import pytest

from tests.unit.dev.listening import listening

pytestmark = pytest.mark.anyio

FIRST = b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n"
INNER = b"GET /inner HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b"\xe9\xff \x80" + INNER + "ß\n".encode() + INNER
POST = (
    b"POST /second HTTP/1.1\r\nHost: x\r\nX: /from-a-header \xe9\xe8\r\n"
    b"Y: \xff /from-another \xff\r\nContent-Length: %d\r\n\r\n" % len(BODY)
)
SECOND = POST + BODY
CHUNKED = POST.replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked") + (
    b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
)
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    """Run each test on asyncio and uvloop: `dev` and `serve` use uvloop."""
    return ("asyncio", {"use_uvloop": request.param})


def seen(answer: bytes) -> list[tuple[str, str, bytes]]:
    """Return method, path and body of each request that the application got."""
    found = [json.loads(each) for each in re.findall(rb"\{.*?\}", answer)]
    return [(each["method"], each["path"], each["body"].encode("latin-1")) for each in found]


@pytest.mark.parametrize("second", [SECOND, CHUNKED], ids=["length", "chunks"])
async def test_a_pipelined_request_may_end_in_later_data(second):
    """A request whose beginning came with the one before it is read as it was sent."""
    expected = [("POST", "/second", BODY), ("GET", "/last", b"")]
    async with listening() as listener:
        for cut in range(1, len(second)):
            async with listener.client() as client:
                await client.send(FIRST + second[:cut])
                await client.until(b"}")  # the first response: its data has been parsed
                await client.send(second[cut:] + LAST)
                assert seen(await client.rest()) == expected, cut


@pytest.mark.parametrize("path", [b"/\xc3\xa9", b"/a\xc3\xa9?\xe2\x82\xac=1"])
async def test_a_line_beyond_ascii_may_arrive_in_parts(path):
    """A request line beyond ASCII is served, wherever it is cut, also after another request."""
    line = b"GET " + path + b" HTTP/1.1\r\n"
    rest = b"Host: x\r\nX: \xe9\r\nConnection: close\r\n\r\n"
    expected = [("GET", path.decode().partition("?")[0], b"")]
    async with listening() as listener:
        for cut in range(1, len(line)):
            async with listener.client() as client:
                await client.send(FIRST)
                await client.until(b"}")
                await client.send(line[:cut])
                await client.send(line[cut:] + rest)
                assert seen(await client.rest()) == expected, cut

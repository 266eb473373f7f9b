"""workerd and edgesim, with equivalent Workers, respond the same to raw HTTP requests."""

import zlib
from collections.abc import Iterator
from contextlib import ExitStack

import brotli
import msgspec
import pytest

from tests.portability.node import node_for
from tests.portability.web.cases import CASES
from tests.portability.web.framing import EQUAL, REFUSED, STRICTER
from tests.portability.web.servers import edgesim, exchange, origin, workerd

UNCOMPARED = {"connection", "date"}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
FRAMING = {"content-length", "transfer-encoding"}


class Response(msgspec.Struct):
    """The parts of a response that must be equal on both sides."""

    status_line: bytes
    headers: list[tuple[str, bytes]]
    body: bytes
    interim: bool
    """True if an interim response came first."""


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The ports of workerd and of edgesim."""
    node_for("workerd")
    folder = tmp_path_factory.mktemp("web")
    with ExitStack() as stack:
        url = stack.enter_context(origin())
        there = stack.enter_context(workerd(folder / "there", url))
        yield there, stack.enter_context(edgesim(folder / "here", url))


@pytest.mark.parametrize("name", CASES | EQUAL)
def test_the_response_is_the_platforms(name: str, ports: tuple[int, int]) -> None:
    """Status line, headers and body are equal; only a 400's explanation may differ."""
    there, here = (understood(exchange(port, (CASES | EQUAL)[name])) for port in ports)
    if there.status_line.startswith(b"HTTP/1.1 400 ") and there.body == b"invalid URI":
        assert here.status_line == there.status_line
    else:
        assert here == there


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_platform_refuses_is_refused(name: str, ports: tuple[int, int]) -> None:
    """The status is equal; the explanation is each one's own."""
    there, here = (understood(exchange(port, REFUSED[name])) for port in ports)
    assert here.status_line == there.status_line
    assert there.status_line.split()[1] in {b"400", b"501"}


@pytest.mark.parametrize("name", STRICTER)
def test_what_a_proxy_may_parse_differently_is_refused(name: str, ports: tuple[int, int]) -> None:
    """workerd serves these requests, edgesim refuses them."""
    request, status = STRICTER[name]
    there, here = (understood(exchange(port, request)) for port in ports)
    assert there.status_line.startswith(b"HTTP/1.1 200 ")
    assert here.status_line.startswith(b"HTTP/1.1 %d " % status)


def understood(received: bytes) -> Response:
    """Return a comparable response: header names in lower case, the body decompressed.

    workerd's status line repeats the request's version; edgesim's has its own.
    """
    received, interim = received.removeprefix(CONTINUE), received.startswith(CONTINUE)
    received = received.replace(b"HTTP/1.0 ", b"HTTP/1.1 ", 1)
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, *lines = head.split(b"\r\n")
    headers = []
    for line in lines:
        name, _, value = line.partition(b": ")
        headers.append((name.decode().lower(), value))
    named = dict(headers)
    if named.get("transfer-encoding") == b"chunked":
        body = dechunked(body)
    packing = named.get("content-encoding")
    dropped = UNCOMPARED
    if packing in {b"gzip", b"br"} and body:
        body = brotli.decompress(body) if packing == b"br" else zlib.decompress(body, 31)
        dropped = UNCOMPARED | FRAMING  # the compressed length depends on the runtime
    kept = sorted(header for header in headers if header[0] not in dropped)
    return Response(status_line, kept, body, interim)


def dechunked(body: bytes) -> bytes:
    """Return the body without chunk framing; assert that the last chunk is there."""
    whole = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            assert body == b"\r\n"
            return whole
        whole += body[:length]
        body = body[length + 2 :]

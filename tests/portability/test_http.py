"""workerd and edgesim, with equivalent Workers, respond the same to raw HTTP requests."""

import zlib
from collections.abc import Iterator
from contextlib import ExitStack

import brotli
import msgspec
import pytest

from tests.portability.node import node_for
from tests.portability.web.cases import CASES
from tests.portability.web.servers import edgesim, exchange, origin, workerd

UNCOMPARED = {"connection", "date"}
FRAMING = {"content-length", "transfer-encoding"}


class Response(msgspec.Struct):
    """The parts of a response that must be equal on both sides."""

    status_line: bytes
    headers: list[tuple[str, bytes]]
    body: bytes


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The ports of workerd and of edgesim."""
    node_for("workerd")
    folder = tmp_path_factory.mktemp("web")
    with ExitStack() as stack:
        url = stack.enter_context(origin())
        there = stack.enter_context(workerd(folder / "there", url))
        yield there, stack.enter_context(edgesim(folder / "here", url))


@pytest.mark.parametrize("name", CASES)
def test_the_response_is_the_platforms(name: str, ports: tuple[int, int]) -> None:
    """Status line, headers and body are equal; only a 400's explanation may differ."""
    there, here = (understood(exchange(port, CASES[name])) for port in ports)
    if there.status_line.startswith(b"HTTP/1.1 400 ") and there.body == b"invalid URI":
        assert here.status_line == there.status_line
    else:
        assert here == there


def understood(received: bytes) -> Response:
    """Return a comparable response: header names in lower case, the body decompressed."""
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
    return Response(status_line, kept, body)


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

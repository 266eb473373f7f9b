"""HTTP/1 connections: refused requests, framing of responses, timeouts and limits."""

import asyncio
import re
import socket
from contextlib import suppress
from typing import Any

import anyio
import pytest

from edgesim.dev.room import ListenerLimits, Room
from tests.unit.dev.listening import echo, listening

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
LONG = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 120_000 + b"\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    """Run each test on asyncio and uvloop: `dev` and `serve` use uvloop."""
    return ("asyncio", {"use_uvloop": request.param})


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def responding(status=200, headers=(), *chunks: bytes, error: Exception | None = None):
    """Return an application that sends this response, then raises ``error`` if there is one."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if error is not None:
            raise error
        await send({"type": "http.response.body", "body": b""})

    return app


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + GET,
        POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde" + GET,
        POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd" + GET,
        POST + b"Content-Length: 4, 4\r\n\r\nabcd" + GET,
        POST + b"Content-Length: +4\r\n\r\nabcd" + GET,
        POST + b"Content-Length: -1\r\n\r\nabcd" + GET,
        POST + b"Content-Length: 0x4\r\n\r\nabcd" + GET,
        POST + b"Content-Length: 99999999999999999999999\r\n\r\nabcd" + GET,
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + GET,
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + GET,
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + GET,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET,
        POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + GET,
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + GET,
        POST + b"Transfer-Encoding: chunked\r\n\r\nz\r\n\r\n" + GET,
        POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + GET,
        POST + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n" + GET,
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n" + GET,
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n" + GET,
        POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n" + GET,
        POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\na" + GET,
        b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET,
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nHost: x\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
        POST + b"Content-Length: 4\r\n Transfer-Encoding: chunked\r\n\r\nabcd" + GET,
        POST + b"Content-Length: 4\r\n\tX: a\r\n\r\nabcd" + GET,
        POST + b"Content-Length : 4\r\n\r\nabcd" + GET,
        POST + b"Content-Length\t: 4\r\n\r\nabcd" + GET,
        POST + b"X: a\nContent-Length: 4\r\n\r\nabcd" + GET,
        POST + b"X: a\rContent-Length: 4\r\n\r\nabcd" + GET,
        POST + b"Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n" + GET,
        POST + b"Transfer-Encoding: chunked\r\n\r\n\r\na\r\n0\r\n\r\n" + GET,
        POST + b"Transfer-Encoding: chunked\r\n\r\n1;\x00\r\na\r\n0\r\n\r\n" + GET,
        b"GET / HTTP/1.1\r\nHost: x\r\n X: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x01b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX\x00: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1]]\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [1:2:3]:80\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a/b@c?d#e\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /#a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n" + GET,
        b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_ambiguous_requests_are_refused(request_bytes):
    """An ambiguous request gets one error and a close; no byte is read as a second request."""
    async with listening() as listener:
        answer = await listener.ask(request_bytes)
    (status,) = statuses(answer)
    assert status in {400, 405, 501, 505}
    assert b"\r\nconnection: close\r\n" in answer


@pytest.mark.parametrize(
    ("request_bytes", "body"),
    [
        (GET, ""),
        (b"GET / HTTP/1.1\r\nhost: [::1]:8787\r\n\r\n", ""),
        (b"GET http://x/ HTTP/1.1\r\nHost: X\r\n\r\n", ""),
        (POST + b"Content-Length: 3\r\n\r\nabc", "abc"),
        (CHUNKED + b'3;a="b;c"\r\nabc\r\n0;x\r\n\r\n', "abc"),
        (CHUNKED + b"0003\r\nabc\r\n000\r\n\r\n", "abc"),
        (
            POST + b"Transfer-Encoding: Chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: 1\r\n\r\n",
            "abc",
        ),
    ],
)
async def test_well_formed_requests_share_a_connection(request_bytes, body):
    """Pipelined requests are answered in order, each with its own body."""
    async with listening() as listener:
        answer = await listener.ask(request_bytes * 3 + LAST)
    assert statuses(answer) == [200] * 4
    assert answer.count(f'"path": "/", "body": "{body}"'.encode()) == (3 if body else 4)


async def test_a_bad_request_waits_for_the_answers_before_it():
    """The refusal of a bad request follows the response of the request before it."""
    async with listening() as listener:
        answer = await listener.ask(GET + b"GET / HTTP/1.1\r\nHost: [\r\n\r\n" + GET)
    assert statuses(answer) == [200, 400]


async def test_pipelined_requests_are_bounded():
    """Of 3,000 pipelined requests some are answered, then 503 ends the connection."""
    async with listening() as listener:
        answer = await listener.ask(GET * 3000)
    assert set(statuses(answer)[:-1]) == {200}
    assert statuses(answer)[-1] == 503


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
async def test_an_upgrade_is_not_made(upgrade):
    """An Upgrade request is answered as a plain one; no byte after it is read as HTTP."""
    head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n"
    async with listening() as listener:
        answer = await listener.ask(head + GET)
    assert statuses(answer) == [200]
    assert b"connection: close" in answer


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("status", [204, 205, 304, 599])
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"transfer-encoding", b"chunked")],
        [(b"Transfer-Encoding", b"gzip"), (b"connection", b"keep-alive, upgrade")],
        [(b"upgrade", b"h2c"), (b"trailer", b"x"), (b"keep-alive", b"timeout=9")],
        [(b"content-length", b"8")],
    ],
)
async def test_the_next_response_begins_where_one_ends(method, status, headers):
    """A forbidden body or the application's own framing headers do not reach the next response."""
    app = responding(status, headers, b"HTTP/1.1")
    head = method + b" / HTTP/1.1\r\nHost: x\r\n\r\n"
    async with listening(app) as listener:
        answer = await listener.ask(head + head.replace(b"1.1", b"1.0"))
    (first, body, rest) = parsed(answer, method)
    (second, last_body, end) = parsed(rest, method)
    with_body = method == b"GET" and status not in {204, 205, 304}
    assert [body, last_body, end] == [b"HTTP/1.1" if with_body else b""] * 2 + [b""]
    for lines in (first, second):
        assert lines[0].startswith(b"HTTP/1.1 %d" % status)
        assert not [line for line in lines if line.startswith((b"upgrade", b"trailer", b"keep"))]
    assert b"connection: close" not in first
    assert b"connection: close" in second
    assert b"transfer-encoding: chunked" not in second


def parsed(answer: bytes, method: bytes) -> tuple[list[bytes], bytes, bytes]:
    """Head lines and body of the first response, as RFC 9112 section 6.3 reads it; the rest."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    if method == b"HEAD" or lines[0].split()[1] in {b"204", b"304"}:
        return lines, b"", rest
    if b"transfer-encoding: chunked" in lines:
        body = b""
        while True:
            size, _, rest = rest.partition(b"\r\n")
            chunk, rest = rest[: int(size, 16)], rest[int(size, 16) + 2 :]
            body += chunk
            if not chunk:
                return lines, body, rest
    lengths = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
    length = lengths[0] if lengths else len(rest)
    return lines, rest[:length], rest[length:]


@pytest.mark.parametrize(
    ("app", "status"),
    [
        (responding(200, [(b"x", b"a\r\nset-cookie: evil=1")]), 500),
        (responding(200, [(b"x\r\ny", b"a")]), 500),
        (responding(200, [(b"x y", b"a")]), 500),
        (responding(200, [(b"", b"a")]), 500),
        (responding(200, [(b"x", b"a\x00b")]), 500),
        (responding(200, [(b"content-length", b"-1")]), 500),
        (responding(200, [(b"content-length", b"abc")]), 500),
        (responding(200, [(b"content-length", b"3"), (b"content-length", b"4")]), 500),
        (responding(100), 500),
        (responding(101), 500),
        (responding(103), 500),
        (responding(999), 500),
    ],
)
async def test_a_response_that_cannot_be_framed_is_a_500(app, status):
    """A response with invalid headers or status is a bare 500 that ends the connection."""
    async with listening(app) as listener:
        answer = await listener.ask(GET + GET)
    assert statuses(answer) == [status]
    assert b"evil" not in answer


@pytest.mark.parametrize(
    ("app", "sent"),
    [
        (responding(200, [], b"abc", error=RuntimeError("amid")), b"\r\n\r\n3\r\nabc\r\n"),
        (responding(200, [(b"content-length", b"9")], b"abc"), b"\r\n\r\nabc"),
        (responding(200, [(b"content-length", b"3")], b"ab", b"cd"), b"\r\n\r\nab"),
    ],
)
async def test_a_broken_response_ends_its_connection(app, sent):
    """After an error within the body, or a body of a wrong length, no other response follows."""
    async with listening(app) as listener, listener.client() as client:
        await client.send(GET + GET)
        try:
            answer = await client.rest()
        except ConnectionResetError:
            answer = b""
    assert len(statuses(answer)) <= 1
    assert answer == b"" or answer.endswith((sent, b"\r\n\r\n"))


async def test_a_body_is_asked_for_when_it_is_read():
    """Reading the body sends 100 Continue; a response without reading it ends the connection."""
    head = POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    async with listening() as listener, listener.client() as client:
        await client.send(head)
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"abc")
        assert b'"body": "abc"' in await client.until(b"}")
    async with listening(responding(413)) as listener, listener.client() as client:
        await client.send(head)
        answer = await client.rest()
    assert statuses(answer) == [413]
    assert b"connection: close" in answer


async def test_an_early_answer_leaves_the_connection_in_step():
    """The rest of a body is dropped after an early response and is not read as a request."""
    async with listening(responding(413)) as listener, listener.client() as client:
        await client.send(POST + b"Content-Length: 100000\r\n\r\n")
        await client.until(b"\r\n\r\n")
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".ljust(100_000, b" ") + LAST)
        assert statuses(await client.rest()) == [413]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"a" * 16_384 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /" + b"a" * 1_000_000, 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 131_072 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: aaaaaaaaaa\r\n" * 100_000, 431),
        (CHUNKED + b"0\r\n" + b"X: a\r\n" * 100_000 + b"\r\n" + LAST, 431),
        (CHUNKED + b"0\r\nX: " + b"a" * 1_000_000, 431),
        (CHUNKED + b"1\r\na\r\n0\r\n" + b"a" * 1_000_000, 431),
        (CHUNKED + b"1;" + b"a" * 1_000_000, 431),
        (CHUNKED + b"0\r\n" + b"X: a\r\n" * 10_000 + b"\r\n" + LAST, 200),
        (CHUNKED + b"1;a=b\r\na\r\n" * 100_000 + b"0\r\nX: a\r\n\r\n" + LAST, 200),
        (GET + LONG + CHUNKED + b"0\r\n" + b"X: a\r\n" * 10_000 + b"\r\n" + LAST, 200),
    ],
)
async def test_heads_and_trailers_are_bounded(head, status):
    """A URL over 16 KB is 414, headers or trailers over 128 KB are 431, also before they end."""
    async with listening() as listener:
        assert set(statuses(await listener.ask(head))) == {status}


async def test_the_largest_head_is_served():
    """A head with 16 KB of URL and 128 KB of headers is served."""
    url = b"/" + b"a" * 16_383
    value = b"a" * (131_072 - len(b"host: x\r\nconnection: close\r\nx: \r\n"))
    async with listening() as listener:
        head = (
            b"GET "
            + url
            + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: "
            + value
            + b"\r\n\r\n"
        )
        assert statuses(await listener.ask(head)) == [200]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", []),
        (b"GET / HT", [408]),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX:", [408]),
        (POST + b"Content-Length: 5\r\n\r\nabc", [408]),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", [408]),
        (GET, [200]),
        (GET + b"GET / HT", [200, 408]),
    ],
)
async def test_a_silent_client_is_let_go(sent, expected):
    """An incomplete head or body is 408 after its timeout; an idle connection is closed."""
    limits = ListenerLimits(head_seconds=0.2, body_seconds=0.2, idle_seconds=0.2)
    async with listening(limits=limits) as listener, listener.client() as client:
        await client.send(sent)
        assert statuses(await client.rest()) == expected


@pytest.mark.parametrize(
    ("sent", "last"),
    [(b"GET / HT", 408), (POST + b"Content-Length: 5\r\n\r\nabc", 408), (b"", 200)],
)
async def test_each_wait_has_its_own_time(sent, last):
    """A short limit holds after a longer one has begun, and at each of several requests."""
    short, long = (0.2, 3600.0) if sent else (3600.0, 0.2)
    limits = ListenerLimits(head_seconds=short, body_seconds=short, idle_seconds=long)
    async with listening(limits=limits) as listener, listener.client() as client:
        for _ in range(3 if sent else 0):
            await client.send(GET)
            assert b"200 OK" in await client.until(b'"body": ""}')
        await client.send(GET + sent)
        assert statuses(await client.rest())[-1] == last


async def test_a_limit_ends_with_its_wait():
    """A connection whose head arrived in time stays open beyond the time limit of heads."""
    limits = ListenerLimits(head_seconds=3, idle_seconds=3600)
    async with listening(limits=limits) as listener, listener.client() as client:
        await client.send(GET)
        await client.until(b'"body": ""}')
        assert await listener.ask(b"GET / HT")  # refused once that time is over
        await client.send(LAST)
        assert statuses(await client.rest()) == [200]


async def test_a_client_that_does_not_read_is_let_go():
    """A response to a client that does not read is aborted; a bounded part of it is buffered."""
    written, ended = 0, anyio.Event()

    async def app(scope, receive, send):
        nonlocal written
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await _next(receive)) is None:
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
            written += 65_536
        ended.set()

    limits = ListenerLimits(write_seconds=0.2)
    async with listening(app, limits) as listener, listener.client() as client:
        transport: Any = client.writer.transport
        transport.pause_reading()
        await client.send(GET)
        with anyio.fail_after(60):
            await ended.wait()
    assert written < 64 << 20


async def test_answers_that_nobody_takes_are_bounded_together():
    """Over the limit of unread bytes the client that waited longest is cut; others get all."""
    size = 24 << 20  # more than the kernel buffers for a client that does not read
    app = responding(200, [], bytes(size))
    limits = ListenerLimits(unread_bytes=2 * size)
    loop = asyncio.get_running_loop()
    async with listening(app, limits) as listener:
        slow = [socket.socket() for _ in range(2)]
        for count, client in enumerate(slow, 1):
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", listener.port))
            await loop.sock_sendall(client, LAST)
            with anyio.fail_after(60):
                while _slow(listener.room) < count:  # noqa: ASYNC110 (no event announces it)
                    await anyio.sleep(0.01)
        assert len(await listener.ask(LAST)) > size
        first, second = [len(await _rest(client)) for client in slow]
    assert first < size < second


def _slow(room: Room) -> int:
    """The number of connections whose clients do not read a large response."""
    return len(room._unread.keys() & room._waiting.keys())


async def _rest(client: socket.socket) -> bytes:
    """Read until the connection ends, also by a reset."""
    received = b""
    with client, anyio.fail_after(60), suppress(ConnectionResetError):
        while chunk := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
            received += chunk
    return received


async def _next(receive):
    """The disconnect message, or None if the client is still connected."""
    with anyio.move_on_after(0):
        await receive()  # the message of the request itself
        return await receive()
    return None


async def test_connections_that_hold_nothing_but_a_place_make_room():
    """At the limit, a new client is served and the oldest silent connection is closed."""
    async with listening(limits=ListenerLimits(connections=5)) as listener:
        silent = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(20)]
        for index, (_, writer) in enumerate(silent):
            writer.write((b"", b"GET / HT", POST + b"Content-Length: 5\r\n\r\na")[index % 3])
        for _ in range(3):
            assert statuses(await listener.ask(LAST)) == [200]
        with anyio.fail_after(60):
            await silent[0][0].read()  # ends
        for _, writer in silent:
            writer.close()


async def test_a_full_house_says_so_and_serves_the_operator():
    """With a running request on every connection, new ones get 503, but admin paths are served."""
    release, all_run, running = anyio.Event(), anyio.Event(), 0

    async def app(scope, receive, send):
        nonlocal running
        if scope["path"] == "/slow":
            running += 1
            if running == 3:
                all_run.set()
            await release.wait()
        await echo(scope, receive, send)

    slow = GET.replace(b"/ ", b"/slow ", 1)
    async with (
        listening(app, ListenerLimits(connections=3)) as listener,
        anyio.create_task_group() as group,
    ):
        answers: list[bytes] = []
        for _ in range(3):
            group.start_soon(_collect, listener, slow, answers)
        with anyio.fail_after(60):
            await all_run.wait()
        refused = await listener.ask(LAST)
        assert statuses(refused) == [503]
        assert b"retry-after: 1\r\n" in refused
        assert statuses(await listener.ask(LAST.replace(b"/ ", b"/cdn-cgi/x ", 1))) == [200]
        release.set()
    assert [statuses(answer) for answer in answers] == [[200]] * 3


async def _collect(listener, request, answers):
    async with listener.client() as client:
        await client.send(request)
        answers.append(await client.until(b"}"))


async def test_places_come_back():
    """Every connection frees its place, however it ends."""
    async with listening(limits=ListenerLimits(connections=2)) as listener:
        for sent in (GET, b"", b"GET", b"bad\r\n\r\n", POST + b"Content-Length: 5\r\n\r\na") * 20:
            async with listener.client() as client:
                await client.send(sent)
        with anyio.fail_after(60):
            while listener.room._holders:  # noqa: ASYNC110 (no event announces it)
                await anyio.sleep(0.001)
        assert statuses(await listener.ask(LAST)) == [200]

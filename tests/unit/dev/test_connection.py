"""HTTP/1 connections: what is refused, how responses are framed, who is closed when."""

import asyncio
import re
import socket
from contextlib import suppress
from typing import Any

import anyio
import pytest

from edgesim.dev.room import Limits, Room
from tests.unit.dev.listening import echo, listening

pytestmark = pytest.mark.anyio

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    """Both event loops: `dev` and `serve` run on uvloop."""
    return ("asyncio", {"use_uvloop": request.param})


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def responding(status=200, headers=(), *chunks: bytes, error: Exception | None = None):
    """An application that answers so."""

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
    """Exactly one answer, an error that closes: no byte becomes part of a second request."""
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
        (
            POST + b"Transfer-Encoding: Chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: 1\r\n\r\n",
            "abc",
        ),
    ],
)
async def test_well_formed_requests_share_a_connection(request_bytes, body):
    """Requests that are sent at once are answered in their order, each with its own body."""
    async with listening() as listener:
        answer = await listener.ask(request_bytes * 3 + LAST)
    assert statuses(answer) == [200] * 4
    assert answer.count(f'"path": "/", "body": "{body}"'.encode()) == (3 if body else 4)


async def test_a_bad_request_waits_for_the_answers_before_it():
    """The refusal comes after the response of the request before, as the client expects."""
    async with listening() as listener:
        answer = await listener.ask(GET + b"GET / HTTP/1.1\r\nHost: [\r\n\r\n" + GET)
    assert statuses(answer) == [200, 400]


async def test_pipelined_requests_are_bounded():
    """Of thousands of requests at once some are answered, then the connection ends."""
    async with listening() as listener:
        answer = await listener.ask(GET * 3000)
    assert set(statuses(answer)[:-1]) == {200}
    assert statuses(answer)[-1] == 503


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
async def test_an_upgrade_is_not_made(upgrade):
    """The request is answered as it is, and no byte after it is read as HTTP."""
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
    """A body where none may be, and framing of the application's own, do not reach the next one."""
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
    """It says nothing of what the application sent, and the connection ends."""
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
    """An error amid the body, and a body of another length than said: no other response follows."""
    async with listening(app) as listener, listener.client() as client:
        await client.send(GET + GET)
        try:
            answer = await client.rest()
        except ConnectionResetError:
            answer = b""
    assert len(statuses(answer)) <= 1
    assert answer == b"" or answer.endswith((sent, b"\r\n\r\n"))


async def test_a_body_is_asked_for_when_it_is_read():
    """Expect: 100-continue gets 100; an answer without reading the body ends the connection."""
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
    """The rest of a body whose request was answered already is dropped; the next is answered."""
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
        (
            POST
            + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
            + b"X: a\r\n" * 100_000
            + b"\r\n"
            + LAST,
            200,
        ),
    ],
)
async def test_heads_are_bounded(head, status):
    """A URL over 16 KB is 414, headers over 128 KB are 431, also before they end."""
    async with listening() as listener:
        assert set(statuses(await listener.ask(head))) == {status}


async def test_the_largest_head_is_served():
    """16 KB of URL and 128 KB of headers are within the limits."""
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
    """Half a head or half a body is 408 after a while; an idle connection is closed."""
    limits = Limits(head_seconds=0.2, body_seconds=0.2, idle_seconds=0.2)
    async with listening(limits=limits) as listener, listener.client() as client:
        await client.send(sent)
        assert statuses(await client.rest()) == expected


async def test_a_client_that_does_not_read_is_let_go():
    """A response that nobody takes is given up; what is written of it is bounded."""
    written, ended = 0, anyio.Event()

    async def app(scope, receive, send):
        nonlocal written
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await _next(receive)) is None:
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
            written += 65_536
        ended.set()

    limits = Limits(write_seconds=0.2)
    async with listening(app, limits) as listener, listener.client() as client:
        transport: Any = client.writer.transport
        transport.pause_reading()
        await client.send(GET)
        with anyio.fail_after(30):
            await ended.wait()
    assert written < 64 << 20


async def test_answers_that_nobody_takes_are_bounded_together():
    """The client that has waited longest with a large answer is cut; who reads has the whole."""
    size = 24 << 20  # more than the kernel takes for a client that does not read
    app = responding(200, [], bytes(size))
    limits = Limits(unread_bytes=2 * size)
    loop = asyncio.get_running_loop()
    async with listening(app, limits) as listener:
        slow = [socket.socket() for _ in range(2)]
        for count, client in enumerate(slow, 1):
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", listener.port))
            await loop.sock_sendall(client, LAST)
            with anyio.fail_after(30):
                while _slow(listener.room) < count:  # noqa: ASYNC110 (nothing announces it)
                    await anyio.sleep(0.01)
        assert len(await listener.ask(LAST)) > size
        first, second = [len(await _rest(client)) for client in slow]
    assert first < size < second


def _slow(room: Room) -> int:
    """Connections whose clients do not take a large answer."""
    return len(room._unread.keys() & room._waiting.keys())


async def _rest(client: socket.socket) -> bytes:
    """What comes until the connection's end, which may be a reset."""
    received = b""
    with client, anyio.fail_after(60), suppress(ConnectionResetError):
        while chunk := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
            received += chunk
    return received


async def _next(receive):
    """The disconnect, if it is there."""
    with anyio.move_on_after(0):
        await receive()  # the request's own message
        return await receive()
    return None


async def test_connections_that_hold_nothing_but_a_place_make_room():
    """A new client is served although silent ones fill the room; the oldest of them is closed."""
    async with listening(limits=Limits(connections=5)) as listener:
        silent = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(20)]
        for index, (_, writer) in enumerate(silent):
            writer.write((b"", b"GET / HT", POST + b"Content-Length: 5\r\n\r\na")[index % 3])
        for _ in range(3):
            assert statuses(await listener.ask(LAST)) == [200]
        with anyio.fail_after(30):
            await silent[0][0].read()  # ends
        for _, writer in silent:
            writer.close()


async def test_a_full_house_says_so_and_serves_the_operator():
    """With a request at work on every connection, new ones are 503, and the admin paths served."""
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
        listening(app, Limits(connections=3)) as listener,
        anyio.create_task_group() as group,
    ):
        answers: list[bytes] = []
        for _ in range(3):
            group.start_soon(_collect, listener, slow, answers)
        with anyio.fail_after(30):
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
    """Connections that end, however they end, leave their places."""
    async with listening(limits=Limits(connections=2)) as listener:
        for sent in (GET, b"", b"GET", b"bad\r\n\r\n", POST + b"Content-Length: 5\r\n\r\na") * 20:
            async with listener.client() as client:
                await client.send(sent)
        with anyio.fail_after(30):
            while listener.room._holders:  # noqa: ASYNC110 (nothing announces it)
                await anyio.sleep(0.001)
        assert statuses(await listener.ask(LAST)) == [200]

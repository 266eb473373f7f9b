"""The HTTP session of the S3 driver with a failing or slow server."""

import io
from contextlib import asynccontextmanager

import aiohttp
import anyio
import pytest
from aiohttp import web

from edgesim.r2.s3.session import Session

pytestmark = pytest.mark.anyio


class Server:
    """A server that replies with the given statuses in order; 0 aborts the connection."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.bodies: list[bytes] = []

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Read the body, then send the next status or abort."""
        self.bodies.append(await request.content.read())
        status = self.statuses.pop(0)
        if status == 0:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=status or 500, body=b"answer")

    @asynccontextmanager
    async def url(self):
        """Serve until the block ends; yield the URL."""
        runner = web.ServerRunner(web.Server(self.answer), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/x"
        finally:
            await runner.cleanup()


@asynccontextmanager
async def opened(timeout: float = 30):
    """A session that is closed at the end of the block."""
    session = Session(timeout)
    try:
        yield session
    finally:
        await session.close()


async def test_a_passing_illness_is_waited_out():
    """Server errors and lost connections are retried, each time with the whole body."""
    body = b"0123456789" * 300_000
    server = Server(200, 0, 503, 0, 500, 200)
    async with server.url() as url, opened() as session:
        headers = {"Content-Length": str(len(body))}
        for _ in range(2):  # the second time over a connection that the server closes
            response = await session.request("PUT", url, data=body, headers=headers)
            assert (response.status, await response.read()) == (200, b"answer")
    assert server.statuses == []
    assert set(server.bodies) == {body}


async def test_a_lasting_illness_is_the_callers_to_see():
    """After five tries the last response is returned."""
    server = Server(*[503] * 6)
    async with server.url() as url, opened() as session:
        response = await session.request("GET", url, data=None, headers={})
        assert response.status == 503
        response.close()
    assert len(server.bodies) == 5


async def test_a_refusal_is_not_tried_again():
    """A refusal such as 403 is not retried."""
    server = Server(403, 200)
    async with server.url() as url, opened() as session:
        response = await session.request("GET", url, data=None, headers={})
        assert response.status == 403
        response.close()


async def test_a_server_that_hangs_up_for_good_is_an_error():
    """A server that always closes the connection is an error."""
    server = Server(*[0] * 10)
    async with server.url() as url, opened() as session:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.request("GET", url, data=None, headers={})


class SlowServer(Server):
    """A server that reads a body slowly, or never replies."""

    def __init__(self, *, answers: bool) -> None:
        super().__init__()
        self.answers = answers

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Read the body slowly, then reply with its size or wait forever."""
        size = 0
        while piece := await request.content.read(1 << 20):
            size += len(piece)
            await anyio.sleep(0.02)
        if not self.answers:
            await anyio.sleep_forever()
        return web.Response(body=b"%d" % size)


async def test_a_slow_upload_takes_the_time_it_needs():
    """The timeout does not apply while the server still reads the body."""
    body = b"x" * (40 << 20)
    async with SlowServer(answers=True).url() as url, opened(timeout=0.5) as session:
        begun = anyio.current_time()
        response = await session.request(
            "PUT", url, data=io.BytesIO(body), headers={"Content-Length": str(len(body))}
        )
        assert await response.read() == b"%d" % len(body)
        assert anyio.current_time() - begun > 0.5


async def test_a_server_that_says_nothing_is_given_up():
    """A server that does not reply is an error after the timeout, without a retry."""
    server = SlowServer(answers=False)
    async with server.url() as url, opened(timeout=0.2) as session:
        with pytest.raises(aiohttp.ServerTimeoutError, match=r"no answer within 0\.2 seconds"):
            await session.request("PUT", url, data=b"x", headers={"Content-Length": "1"})

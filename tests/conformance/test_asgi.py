"""ASGI applications by ``workers.asgi``: bare ones here, FastAPI in tests/packages."""

import pytest

from edgesim.model import BindingSpec
from tests.conformance.test_isolates import LEVELS, Level, Recorder

pytestmark = pytest.mark.anyio

APP = """
from workers import asgi

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    else:
        await answer(scope, receive, send)

async def lifespan(scope, receive, send):
    while (message := await receive())["type"] == "lifespan.startup":
        scope["state"]["began"] = 1
        await send({"type": "lifespan.startup.complete"})
    print("ended")
    await send({"type": "lifespan.shutdown.complete"})

async def start(send, status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": headers})

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return await asgi.fetch(app, request, self.env, self.ctx)
"""
ECHO = """
async def answer(scope, receive, send):
    message = await receive()
    seen = [scope[name] for name in ("method", "path", "scheme", "http_version")]
    seen += [scope["raw_path"].decode(), scope["query_string"].decode(), scope["state"]["began"]]
    seen += [dict(scope["headers"])[b"x-a"].decode(), scope["env"].ME, message["body"].decode()]
    await start(send, 201, [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")])
    await send({"type": "http.response.body", "body": json.dumps(seen).encode(), "more_body": True})
    await send({"type": "http.response.body"})
    assert (await receive())["type"] == "http.disconnect"
"""


@pytest.fixture(params=LEVELS)
def level(request, tmp_path):
    return Level(request.param, tmp_path)


async def run(level, source, **request):
    host = Recorder(level.clock)
    async with level.load(APP + source, BindingSpec("ME", "text", "w")) as isolates:
        return await isolates.invoke(level.request(**request), host), host


def lines(host):
    return [part for _, message in host.logs for part in message]


async def test_scope_body_and_response(level):
    """The scope has path, headers, state and env; parts of the body are joined, cookies kept."""
    done, host = await run(level, ECHO, url="http://x/a%20b?q=1", body=b"sent")
    response = host.responses[0]
    assert (done.outcome, response.status) == ("ok", 201)
    cookies = [value for name, value in response.headers if name.lower() == "set-cookie"]
    assert cookies == ["a=1", "b=2"]
    assert response.body == (
        b'["POST", "/a b", "http", "1.1", "/a%20b", "q=1", 1, "1", "w", "sent"]'
    )
    assert lines(host) == ["ended"]


async def test_a_response_without_a_body(level):
    """204 is sent without one, whatever the application says."""
    source = """
async def answer(scope, receive, send):
    await start(send, 204)
    await send({"type": "http.response.body", "body": b"lost"})
"""
    _, host = await run(level, source)
    assert (host.responses[0].status, host.responses[0].body) in {(204, None), (204, b"")}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('bad luck')", "ValueError: bad luck"),
        ("pass", "RuntimeError: The application did not generate a response"),
    ],
)
async def test_an_application_that_fails(level, body, said):
    """The application's exception fails the invocation, and its lifespan is ended."""
    done, host = await run(level, f"async def answer(scope, receive, send):\n    {body}\n")
    assert done.outcome == "exception"
    assert said in done.exceptions[0].message
    assert "ended" in lines(host)


async def test_work_after_the_response(level, caplog):
    """The response goes out first; what fails then is logged, at inline by pytest's handler."""
    source = """
async def answer(scope, receive, send):
    await start(send)
    await send({"type": "http.response.body", "body": b"ok"})
    await asyncio.sleep(0)
    raise ValueError("too late")
"""
    done, host = await run(level, source)
    assert (done.outcome, host.responses[0].body) == ("ok", b"ok")
    assert "ValueError: too late" in [*lines(host), *caplog.text.splitlines()]


async def test_an_application_without_a_lifespan(level):
    """One that raises at ``lifespan`` is served all the same."""
    source = """
async def lifespan(scope, receive, send):
    raise NotImplementedError
async def answer(scope, receive, send):
    await start(send)
    await send({"type": "http.response.body", "body": b"ok"})
Default = __import__("asgi").entrypoint(app)
"""
    done, host = await run(level, source)
    assert (done.outcome, host.responses[0].body) == ("ok", b"ok")


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_an_application_that_cannot_start_or_end(level, phase):
    """Its own message is raised."""
    source = f"""
async def lifespan(scope, receive, send):
    if "{phase}" == "shutdown":
        await send({{"type": "lifespan.startup.complete"}})
    await send({{"type": "lifespan.{phase}.failed", "message": "no database"}})
async def answer(scope, receive, send):
    await start(send)
    await send({{"type": "http.response.body", "body": b"ok"}})
"""
    done, _ = await run(level, source)
    assert "RuntimeError: no database" in done.exceptions[0].message

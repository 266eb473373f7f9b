"""``js`` at every level: random values, time, libraries loaded late, streams, what is not there.

``tests/portability`` compares its behaviour with Pyodide.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import pytest

from edgesim.isolates.protocol.wire import Done, Invoke
from tests.conformance.test_isolates import Level, Recorder

pytestmark = pytest.mark.anyio

HEAD = """
import js
from js import (
    Date, IdentityTransformStream, Object, Response as JsResponse, TextDecoder, TextEncoder,
    TransformStream, Uint8Array, URL, WebSocket, WebSocketPair, caches, crypto,
)
from pyodide.ffi import JsException, to_js

def params(**items):
    return to_js(items, dict_converter=Object.fromEntries)

class Default(WorkerEntrypoint):
    async def fetch(self, request):
"""


@dataclass
class Seen:
    """Outcome of one invocation, and its host."""

    done: Done
    host: Recorder

    @property
    def json(self) -> Any:
        assert self.done.outcome == "ok", self.done.exceptions
        return json.loads(self.host.responses[0].body)


@pytest.fixture(params=["process", "warm", "inline"])
def level(request, tmp_path):
    return Level(request.param, tmp_path)


def source(body: str) -> str:
    lines = body.strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    return HEAD + "\n".join(" " * 8 + line[indent:] for line in lines)


async def invoke(level: Level, body: str, *seeds: int | None) -> list[Seen]:
    """Invoke the handler with these lines once for each seed, in one Worker."""
    found = []
    async with level.load(source(body)) as isolates:
        for seed in seeds:
            host = Recorder(level.clock)
            event = level.request().event
            done = await isolates.invoke(Invoke("fetch", event, level.clock.now(), seed), host)
            found.append(Seen(done, host))
    return found


async def test_random_values_are_the_platforms(level):
    """The same seed gives the same values and keys, another seed gives others."""
    body = """
        numbers = crypto.getRandomValues(Uint8Array.new(8)).to_bytes().hex()
        key = await crypto.subtle.generateKey(params(name="HMAC", hash="SHA-256"), True, ["sign"])
        secret = (await crypto.subtle.exportKey("raw", key)).to_bytes().hex()
        return Response(json.dumps([numbers, crypto.randomUUID(), secret]))
    """
    one, again, other = [each.json for each in await invoke(level, body, 1, 1, 2)]
    assert one == again
    assert not set(one) & set(other)


async def test_the_time_is_the_platforms(level):
    """Date shows the clock of the platform, which stands still while code runs."""
    level.clock.now = lambda: 1_790_000_000.25
    body = """
        now = Date.now()
        return Response(json.dumps([now, Date.new().toISOString(), Date()[:15], Date.now() == now]))
    """
    (seen,) = await invoke(level, body, None)
    assert seen.json == [1_790_000_000_250, "2026-09-21T14:13:20.250Z", "Mon Sep 21 2026", True]


async def test_libraries_that_are_loaded_when_they_are_used(level):
    """Digests, hosts beyond ASCII and other encodings work inside of the jail, and again."""
    body = """
        subtle, data = crypto.subtle, to_js(b"abc")
        password = await subtle.importKey("raw", data, "PBKDF2", False, ["deriveBits"])
        pbkdf2 = params(name="PBKDF2", salt=data, iterations=2, hash="SHA-512")
        return Response(json.dumps([
            (await subtle.digest("MD5", data)).to_bytes().hex(),
            (await subtle.deriveBits(pbkdf2, password, 64)).to_bytes().hex(),
            subtle.timingSafeEqual(data, to_js(b"abc")),
            URL.new("http://Bücher.example/").host,
            URL.new("http://[1:0:0:0:2::3]").host,
            TextDecoder.new("shift_jis").decode(to_js(b"\\x82\\xa0")),
            TextDecoder.new("gbk").decode(to_js(b"\\xc4\\xe3")),
        ]))
    """
    first, second = [each.json for each in await invoke(level, body, None, None)]
    assert first == second
    assert first == [
        "900150983cd24fb0d6963f7d28e17f72",
        hashlib.pbkdf2_hmac("sha512", b"abc", b"abc", 2, 8).hex(),
        True,
        "xn--bcher-kva.example",
        "[1::2:0:0:3]",
        "あ",
        "你",
    ]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ("WebSocket.new('ws://x')", "js.WebSocket "),
        ("WebSocketPair.new()", "js.WebSocketPair "),
        ("caches.default", "js.caches "),
        ("js.HTMLRewriter.new()", "js.HTMLRewriter "),
        ("js.WritableStream.new(params())", "js.WritableStream.new "),
        ("crypto.subtle.encrypt", "crypto.subtle.encrypt "),
        (
            "await crypto.subtle.importKey('raw', to_js(b'k'), 'AES-GCM', 0, ['encrypt'])",
            "AES-GCM ",
        ),
        ("await crypto.subtle.sign('Ed25519', None, to_js(b'k'))", "Ed25519 "),
        ("Date.new().toLocaleDateString('de-DE')", "toLocaleString "),
    ],
)
async def test_what_is_not_there(level, call, named):
    """It can be imported; its use is one error that names it."""
    body = f"""
        try:
            {call}
        except NotImplementedError as error:
            return Response(json.dumps(str(error)))
    """
    (seen,) = await invoke(level, body, None)
    assert named in seen.json
    assert "not in edgesim" in seen.json


async def test_a_response_that_is_written_while_it_is_read(level):
    """The body is what a task in waitUntil writes, in order, at any pace."""
    body = """
        stream = TransformStream.new()
        writer = stream.writable.getWriter()
        async def produce():
            for n in range(3):
                await writer.write(TextEncoder.new().encode(f"data: {n}\\n\\n"))
                await asyncio.sleep(0.001)
            await writer.close()
        self.ctx.waitUntil(produce())
        return Response(stream.readable, headers={"content-type": "text/event-stream"})
    """
    for seen in await invoke(level, body, None, None):
        assert seen.done.outcome == "ok", seen.done.exceptions
        assert seen.host.responses[0].body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


async def test_a_written_body_goes_through_a_transformer_to_another_worker(level):
    """A request's body is piped through a transformer and sent as the body of a request."""
    body = """
        def double(chunk, controller):
            controller.enqueue(chunk)
            controller.enqueue(chunk)
        through = TransformStream.new(params(transform=double))
        doubled = JsResponse.new("ab").body.pipeThrough(through)
        body = doubled.pipeThrough(IdentityTransformStream.new())
        await fetch("http://other/", method="POST", body=body)
        return Response("sent")
    """
    sent = []

    async def other(call):
        sent.append(call.args[0]["body"])
        headers = {"status": 200, "statusText": "", "headers": [], "body": b""}
        return headers | {"url": "http://other/", "redirected": False}

    host = Recorder(level.clock, fetch=other)
    async with level.load(source(body)) as isolates:
        done = await isolates.invoke(level.request(), host)
    assert done.outcome == "ok", done.exceptions
    assert sent == [b"abab"]


@pytest.mark.parametrize("name", ["process", "warm"])
@pytest.mark.parametrize("ending", ["pass", "raise ValueError('x')"])
async def test_a_body_that_is_never_closed(name, ending, tmp_path):
    """The invocation has hung, as on Cloudflare when nothing can end the response."""
    body = f"""
        stream = TransformStream.new()
        writer = stream.writable.getWriter()
        async def produce():
            await writer.write(TextEncoder.new().encode("never closed"))
            {ending}
        self.ctx.waitUntil(produce())
        return Response(stream.readable)
    """
    (seen,) = await invoke(Level(name, tmp_path), body, None)
    assert seen.done.outcome == "exception"
    assert "had hung" in seen.done.exceptions[0].message


async def test_a_writer_that_fails_fails_the_response(level):
    """The reason of ``abort`` is the invocation's exception."""
    body = """
        stream = TransformStream.new()
        writer = stream.writable.getWriter()
        async def produce():
            await writer.write(TextEncoder.new().encode("begun"))
            await writer.abort(ValueError("no more"))
        self.ctx.waitUntil(produce())
        return Response(stream.readable)
    """
    (seen,) = await invoke(level, body, None)
    assert seen.done.outcome == "exception"
    assert "ValueError: no more" in seen.done.exceptions[0].message

"""Control characters in values of headers: as in workerd, all but NUL, CR and LF are allowed."""

import json
import socket
from functools import partial
from pathlib import Path

import pytest

from tests.javascript_world import programs, running, write_javascript
from tests.processes import dev
from tests.simulated import ask, write_worker

pytestmark = pytest.mark.anyio

ALLOWED = [1, 8, 9, 11, 12, 14, 27, 31, 127]
REFUSED = [0, 10, 13]
CHARACTERS = ALLOWED + REFUSED
JAVASCRIPT = """
const value = ({ url }) => `a${String.fromCharCode(new URL(url).searchParams.get("c"))}b`;
export default {
  async fetch(request, env) {
    if (request.headers.has("x")) return Response.json(request.headers.get("x"));
    try {
      const path = new URL(request.url).pathname;
      if (path === "/response") return new Response("", { headers: { x: value(request) } });
      return await env.OTHER.fetch("http://other/", { headers: { x: value(request) } });
    } catch (error) {
      return new Response(`${error.name}: ${error.message}`, { status: 500 });
    }
  },
};
"""
PYTHON = """
from urllib.parse import parse_qs, urlsplit
import json
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        headers = dict(request.headers)
        if "x" in headers:
            return Response(json.dumps(headers["x"]))
        url = urlsplit(request.url)
        value = "a" + chr(int(parse_qs(url.query)["c"][0])) + "b"
        try:
            if url.path == "/response":
                return Response("", headers={"x": value})
            return await self.env.OTHER.fetch("http://other/", headers={"x": value})
        except Exception as error:
            return Response(str(error), status=500)
"""


@pytest.fixture
def anyio_backend():
    return "asyncio"


def write(folder: Path, language: str, other: str) -> None:
    for name, each in (("main", language), ("other", other)):
        services = [{"binding": "OTHER", "service": "other"}] if name == "main" else []
        if each == "javascript":
            write_javascript(folder, name, JAVASCRIPT, services=services)
        else:
            write_worker(folder, name, PYTHON, services=services)


@pytest.mark.parametrize("level", ["process", "warm"])
@pytest.mark.parametrize(
    ("language", "other"),
    [("javascript", "python"), ("python", "javascript"), ("python", "python")],
)
async def test_a_value_reaches_another_worker(tmp_path, level, language, other):
    """Through a service binding, between both languages; the refused ones are a TypeError."""
    write(tmp_path, language, other)
    async with running(tmp_path, "main", "other", isolation=level) as simulator:
        for code in ALLOWED:
            status, body = await ask(simulator, f"http://x/call?c={code}")
            text = f"a{chr(code)}b"
            assert (status, json.loads(body)) == (200, text), code
        for code in REFUSED:
            status, body = await ask(simulator, f"http://x/call?c={code}")
            assert (status, b"Invalid header value" in body) == (500, True), code


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_a_value_reaches_the_client(tmp_path, monkeypatch, language):
    """In a response, as it is; nothing that ends the header."""
    found = programs()
    monkeypatch.setenv("EDGESIM_WORKERD", str(found.workerd))
    monkeypatch.setenv("EDGESIM_ESBUILD", str(found.esbuild))
    write(tmp_path, language, "python")
    (tmp_path / "edgesim.toml").write_text('workers = ["main", "other"]\n')
    with dev(tmp_path, tmp_path / "state", "--no-reload") as started:
        port = int(started.url.rpartition(":")[2])
        for code in CHARACTERS:
            with socket.create_connection(("127.0.0.1", port), 60) as client:
                head = f"GET /response?c={code} HTTP/1.1\r\nHost: localhost\r\n"
                client.sendall(f"{head}Connection: close\r\n\r\n".encode())
                answer = b"".join(iter(partial(client.recv, 65_536), b""))
            lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
            values = [line for line in lines if line.lower().startswith(b"x: ")]
            assert [line[3:] for line in values] == (
                [b"a" + bytes([code]) + b"b"] if code in ALLOWED else []
            ), code
            assert lines[0].split()[1] == (b"200" if code in ALLOWED else b"500")
        assert started.stop() == 0

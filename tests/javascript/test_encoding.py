"""Compressed responses between Workers: the caller reads the plain body, beside the header."""

import json

import pytest

from tests.javascript_world import running, write_javascript
from tests.simulated import ask, write_worker

pytestmark = pytest.mark.anyio

JAVASCRIPT = """
export default {
  async fetch(request) {
    const path = new URL(request.url).pathname.slice(1);
    const headers = { "content-encoding": path };
    switch (path) {
      case "plain": return new Response("text");
      case "empty": return new Response(null, { headers: { "content-encoding": "gzip" } });
      case "streamed": {
        const { readable, writable } = new TransformStream();
        const writer = writable.getWriter();
        const text = new TextEncoder().encode("text");
        const write = async () => {
          await writer.write(text.slice(0, 2));
          await writer.write(text.slice(2));
          await writer.close();
        };
        write();
        return new Response(readable, { headers: { "content-encoding": "gzip" } });
      }
      case "packed": case "false": {
        let body = new Response("text").body;
        if (path === "packed") body = body.pipeThrough(new CompressionStream("gzip"));
        headers["content-encoding"] = "gzip";
        return new Response(body, { headers, encodeBody: "manual" });
      }
      default: return new Response("text", { headers });
    }
  },
};
"""
PYTHON = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        path = request.url.rpartition("/")[2]
        if path == "plain":
            return Response("text")
        if path == "empty":
            return Response(None, headers={"content-encoding": "gzip"})
        encoding = "gzip" if path == "streamed" else path
        return Response("text", headers={"content-encoding": encoding})
"""
CALLING_JAVASCRIPT = """
export default {
  async fetch(request, env) {
    const found = {};
    for (const path of await request.json()) {
      const response = await env.CALLEE.fetch(`http://x/${path}`);
      try {
        found[path] = [response.headers.get("content-encoding"), await response.text()];
      } catch (error) {
        found[path] = "failed";
      }
    }
    return Response.json(found);
  },
};
"""
CALLING_PYTHON = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        found = {}
        for path in await request.json():
            response = await self.env.CALLEE.fetch(f"http://x/{path}")
            try:
                found[path] = [response.headers.get("content-encoding"), await response.text()]
            except Exception:
                found[path] = "failed"
        return Response(json.dumps(found))
"""
EXPECTED = {
    "gzip": ["gzip", "text"],
    "br": ["br", "text"],
    "zstd": ["zstd", "text"],
    "identity": ["identity", "text"],
    "plain": [None, "text"],
    "empty": ["gzip", ""],
    "streamed": ["gzip", "text"],
}
OF_JAVASCRIPT = {"packed": ["gzip", "text"], "false": "failed"}
"""Bodies that the Worker has compressed itself, or has not although it says so."""


@pytest.fixture(name="anyio_backend")
def one_loop():
    return "asyncio"


@pytest.mark.parametrize(
    ("caller", "callee"), [("js", "js"), ("js", "python"), ("python", "js"), ("python", "python")]
)
async def test_the_caller_reads_the_plain_body(tmp_path, caller, callee):
    """As in workerd between two of its Workers, whatever either is written in."""
    services = [{"binding": "CALLEE", "service": "callee"}]
    if caller == "js":
        write_javascript(tmp_path, "main", CALLING_JAVASCRIPT, services=services)
    else:
        write_worker(tmp_path, "main", CALLING_PYTHON, services=services)
    if callee == "js":
        write_javascript(tmp_path, "callee", JAVASCRIPT)
    else:
        write_worker(tmp_path, "callee", PYTHON)
    expected = EXPECTED | (OF_JAVASCRIPT if callee == "js" else {})
    async with running(tmp_path, "main", "callee") as simulator:
        body = json.dumps(list(expected)).encode()
        status, text = await ask(simulator, method="POST", body=body)
        assert status == 200, text
        assert json.loads(text) == expected


async def test_a_response_that_is_handed_on_stays_compressed_once(tmp_path):
    """A Worker returns another's response: the body on the wire is in the form of its header."""
    services = [{"binding": "CALLEE", "service": "callee"}]
    handing = "export default { fetch: (request, env) => env.CALLEE.fetch(request) };"
    write_javascript(tmp_path, "main", handing, services=services)
    write_javascript(
        tmp_path, "second", CALLING_JAVASCRIPT, services=[{"binding": "CALLEE", "service": "main"}]
    )
    write_javascript(tmp_path, "callee", JAVASCRIPT)
    async with running(tmp_path, "main", "callee", "second") as simulator:
        body = json.dumps(list(EXPECTED)).encode()
        _, text = await ask(simulator, worker="second", method="POST", body=body)
        assert json.loads(text) == EXPECTED

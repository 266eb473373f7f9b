"""The R2, KV, queue, HTTP, service and runtime behaviours of ``cases``, asked from JavaScript."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.javascript.cases import CASES
from tests.javascript_world import running, write_javascript
from tests.simulated import ask, write_worker

LEVELS = ["process", "warm"]
HELPERS = """
import { WorkerEntrypoint, env as everywhere } from "cloudflare:workers";

async function fails(call) {
  try { await call; } catch (error) { return [error.name, error.message]; }
  return ["nothing was thrown", ""];
}

const text = (stream) => new Response(stream).text();

export class Rpc extends WorkerEntrypoint {
  add(a, b) { return a + b; }
  async later(value) { await scheduler.wait(1); return value; }
  echo(value) { return value; }
  fail() { throw new RangeError("bad luck"); }
  variable(name) { return this.env[name]; }
}

async function serve(request) {
  switch (new URL(request.url).pathname) {
    case "/echo":
      return Response.json([request.method, await request.text(), request.headers.get("x-a")]);
    case "/418": return new Response("", { status: 418 });
    case "/204": return new Response(null, { status: 204 });
    case "/302": return Response.redirect("http://main.localhost/echo");
    case "/throw": throw new Error("x");
    case "/cookies": {
      const headers = new Headers();
      headers.append("set-cookie", "a=1");
      headers.append("set-cookie", "b=2");
      return new Response("", { headers });
    }
    case "/stream": {
      const { readable, writable } = new TransformStream();
      const writer = writable.getWriter();
      (async () => {
        for (let i = 0; i < 3; i++) await writer.write(new TextEncoder().encode(`part${i}`));
        await writer.close();
      })();
      return new Response(readable);
    }
  }
}

export default {
  async fetch(request, env, ctx) {
    const number = request.headers.get("x-case");
    if (number === null) return serve(request);
    return Response.json((await cases[Number(number)](request, env, ctx)) ?? null);
  },
  async queue() {},
};
"""
PYTHON = """
from datetime import datetime

class Default(WorkerEntrypoint):
    async def twice(self, number):
        return number * 2
    async def nothing(self):
        return None
    async def data(self):
        return b"\\x00\\xff"
    async def date(self):
        return datetime(1970, 1, 1, 0, 0, 5)
    async def fail(self):
        raise ValueError("no")
"""


def answers(folder: Path, level: str) -> list[tuple[int, bytes]]:
    """Run all cases in one project, each in a request of its own."""
    bodies = "".join(
        f"  async (request, env, ctx) => {{ {{ {body} }} }}, // {name}\n" for name, body, _ in CASES
    )
    settings: dict[str, Any] = {
        "vars": {"TEXT": "text", "DATA": {"a": [1]}},
        "r2_buckets": [{"binding": "B", "bucket_name": "bucket"}],
        "kv_namespaces": [{"binding": "K", "id": "ns"}],
        "queues": {
            "producers": [{"binding": "Q", "queue": "q"}],
            "consumers": [{"queue": "q"}],
        },
        "services": [
            {"binding": "SELF", "service": "main", "entrypoint": "Rpc"},
            {"binding": "PY", "service": "py"},
        ],
    }
    write_javascript(folder, "main", f"{HELPERS}\nconst cases = [\n{bodies}];\n", **settings)
    write_worker(folder, "py", PYTHON)

    async def run() -> list[tuple[int, bytes]]:
        async with running(folder, "main", "py", isolation=level) as simulator:
            return [
                await ask(simulator, headers={"x-case": str(number)})
                for number in range(len(CASES))
            ]

    return anyio.run(run)


@pytest.fixture(scope="module", params=LEVELS)
def answered(request, tmp_path_factory):
    """The responses of all cases at one level."""
    return answers(tmp_path_factory.mktemp("cases"), request.param)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case[0] for case in CASES])
def test_case(answered, number):
    """The handler returns what the case says."""
    status, body = answered[number]
    assert status == 200, body
    assert json.loads(body) == CASES[number][2]


def test_there_are_enough_cases():
    """At least 120 behaviours, each with a name of its own."""
    assert len({case[0] for case in CASES}) == len(CASES) >= 120

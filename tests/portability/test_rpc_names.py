"""Names of RPC methods mean the same between Workers on edgesim as between Workers on workerd."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.javascript_world import DATE, running, write_javascript
from tests.portability.node import node_for
from tests.portability.web.servers import served
from tests.simulated import ask, write_worker

pytestmark = pytest.mark.anyio

CALLED = [
    *("kind", "rpc", "queue", "scheduled", "tail", "trace", "email", "name", "args", "method"),
    *("send", "call", "get", "then_", "finally", "catch", "_private", "toJSON", "self", "next"),
]
REFUSED = ["alarm", "dup", "webSocketClose", "webSocketError", "webSocketMessage", "ctx", "env"]
LOCAL = ["toString", "toLocaleString", "hasOwnProperty", "valueOf", "then"]
"""Names that every JavaScript object has, and one that is undefined."""
MIXED = [("javascript", "javascript"), ("javascript", "python"), ("python", "javascript")]
CONFIG = """
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "caller", worker = .caller), (name = "callee", worker = .callee)],
  sockets = [(name = "http", address = "127.0.0.1:%(port)d", http = (), service = "caller")],
);
const caller :Workerd.Worker = (
  modules = [(name = "caller.mjs", esModule = embed "caller.mjs")],
  compatibilityDate = "%(date)s",
  bindings = [(name = "B", service = "callee")],
);
const callee :Workerd.Worker = (
  modules = [(name = "callee.mjs", esModule = embed "callee.mjs")],
  compatibilityDate = "%(date)s",
);
"""
JAVASCRIPT_CALLER = """
const NAMES = %s;
export default {
  async fetch(request, env) {
    const found = {};
    for (const name of NAMES) {
      if (typeof env.B[name] !== "function") {
        found[name] = typeof env.B[name];
        continue;
      }
      try {
        const value = await env.B[name](name);
        found[name] = typeof value === "object" ? String(value) : value;
      } catch (error) {
        found[name] = String(error);
      }
    }
    return Response.json(found);
  },
};
"""
PYTHON_CALLER = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        found = {{}}
        for name in {names!r}:
            try:
                found[name] = await getattr(self.env.B, name)(name)
            except Exception as error:
                found[name] = str(error)
        return Response.json(found)
"""


def javascript_callee() -> str:
    """Return a Worker with a method of each name, which workerd may not let others call."""
    method = '{name}(value) {{ return "called " + value; }}\n'
    methods = "".join(method.format(name=each) for each in CALLED + REFUSED)
    head = 'import { WorkerEntrypoint } from "cloudflare:workers";\n'
    return f"{head}export default class extends WorkerEntrypoint {{\n{methods}}}\n"


def python_callee() -> str:
    """Return the same in Python; ``ctx`` and ``env`` are what the base class sets."""
    names = [each for each in CALLED + REFUSED if each not in {"ctx", "env"}]
    return f"""
class Default(WorkerEntrypoint):
    pass

for name in {names!r}:
    setattr(Default, name, lambda self, value: "called " + value)
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Replies to a caller on workerd, by name."""
    node_for("workerd")
    folder = tmp_path_factory.mktemp("workerd")
    caller = JAVASCRIPT_CALLER % json.dumps(CALLED + REFUSED + LOCAL)
    (folder / "caller.mjs").write_text(caller)
    (folder / "callee.mjs").write_text(javascript_callee())
    with (
        served(folder, CONFIG, {"date": DATE}) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/") as reply,
    ):
        return dict(json.load(reply))


def test_the_platform_calls_and_refuses(platform):
    """The names are what they are taken for."""
    assert [each for each in CALLED if platform[each] != f"called {each}"] == []
    assert [each for each in REFUSED if not platform[each].startswith("TypeError: ")] == []


PAIRS = [
    *(("python", "python", level) for level in ("process", "warm", "inline")),
    *((*pair, level) for pair in MIXED for level in ("process", "warm")),
]


@pytest.mark.parametrize(("caller", "callee", "level"), PAIRS)
async def test_names_mean_the_same(tmp_path: Path, platform, caller, callee, level):
    """A method is called, or refused with the same words, between Workers of either language."""
    names = CALLED + REFUSED + (LOCAL if caller == "javascript" else [])
    services = [{"binding": "B", "service": "b"}]
    if caller == "javascript":
        write_javascript(tmp_path, "a", JAVASCRIPT_CALLER % json.dumps(names), services=services)
    else:
        write_worker(tmp_path, "a", PYTHON_CALLER.format(names=names), services=services)
    if callee == "javascript":
        write_javascript(tmp_path, "b", javascript_callee())
    else:
        write_worker(tmp_path, "b", python_callee())
    async with running(tmp_path, "a", "b", isolation=level) as simulator:
        status, body = await ask(simulator)
    assert status == 200
    assert json.loads(body) == {each: platform[each] for each in names}

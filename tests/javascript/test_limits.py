"""JavaScript Workers that loop, fill the memory or die: their outcomes, and everybody else's."""

import os
import signal
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketAttribute, SocketStream

from edgesim.errors import EdgesimError
from tests.javascript_world import running, write_javascript
from tests.simulated import ask, settle

pytestmark = pytest.mark.anyio

LEVELS = ["process", "warm"]
HOSTILE = """
const kept = [];
export default {
  async fetch(request, env) {
    switch (new URL(request.url).pathname) {
      case "/loop": for (;;);
      case "/turns": for (;;) await Promise.resolve();
      case "/heap": for (;;) kept.push(new Array(10_000).fill(Math.random()));
      case "/buffers":
        for (;;) { kept.push(new Uint8Array(8 << 20).fill(1)); await scheduler.wait(1); }
      case "/logs": for (let i = 0; i < 2000; i++) console.log("x".repeat(1000)); break;
      case "/calls": {
        const names = Array.from({ length: 500 }, (_, i) => `${i}`);
        await Promise.all(names.map((name) => env.B.put(name, "x")));
        break;
      }
      case "/cut": return new Response((await (await fetch(await request.text())).text()).length);
      case "/hand-on": return fetch(await request.text());
      case "/wait": await scheduler.wait(500); break;
      case "/builtins": Array.prototype.map = Object.entries = JSON.stringify = () => { throw 1; };
        break;
    }
    return new Response("ok");
  },
};
"""
BUCKET = [{"binding": "B", "bucket_name": "bucket"}]


@pytest.fixture(name="anyio_backend")
def one_loop():
    return "asyncio"


@pytest.fixture(params=LEVELS)
def level(request):
    return request.param


def children():
    """Process ids of the workerd processes that this test has started."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            name = (folder / "comm").read_text().strip()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and name == "workerd" and fields[0] != "Z":
            found.add(int(folder.name))
    return found


@pytest.mark.parametrize(
    ("path", "status", "outcome"),
    [
        ("loop", 503, "exceededCpu"),
        ("turns", 503, "exceededCpu"),
        ("heap", 503, "exceededMemory"),
        pytest.param("buffers", 503, "exceededMemory", marks=pytest.mark.linux),
    ],
)
async def test_a_limit_ends_the_invocation_alone(tmp_path, level, path, status, outcome):
    """The guilty one gets the platform's outcome; the Worker serves the next request."""
    limits = {"cpu_ms": 100 if outcome == "exceededCpu" else 20_000}
    write_javascript(tmp_path, "main", HOSTILE, limits=limits, r2_buckets=BUCKET)
    async with running(tmp_path, "main", isolation=level) as simulator:
        assert (await ask(simulator, f"http://x/{path}"))[0] == status
        assert simulator.workers["main"].outcomes == {outcome: 1}
        assert await ask(simulator) == (200, b"ok")


async def test_neighbours_of_a_loop_are_served(tmp_path, level):
    """Requests that come while one loops are run again elsewhere; only the loop fails."""
    write_javascript(tmp_path, "main", HOSTILE, limits={"cpu_ms": 500}, r2_buckets=BUCKET)
    async with running(tmp_path, "main", isolation=level) as simulator:
        seen = []

        async def one(path):
            seen.append((path, (await ask(simulator, f"http://x/{path}"))[0]))

        async with anyio.create_task_group() as tasks:
            for path in ("loop", *["good"] * 5):
                tasks.start_soon(one, path)
        assert sorted(seen) == [*[("good", 200)] * 5, ("loop", 503)]
        await settle(simulator)
        assert simulator.workers["main"].outcomes == {"ok": 5, "exceededCpu": 1}


async def test_a_killed_process_is_replaced(tmp_path, level):
    """kill -9 from outside: a request of which nothing had left is run again, and succeeds."""
    write_javascript(tmp_path, "main", HOSTILE, r2_buckets=BUCKET)
    async with running(tmp_path, "main", isolation=level) as simulator:
        (before,) = children()
        seen = []

        async def one():
            seen.append(await ask(simulator, "http://x/wait"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            while simulator.workers["main"].in_flight == 0:
                await anyio.lowlevel.checkpoint()
            os.kill(before, signal.SIGKILL)
        assert seen == [(200, b"ok")]
        (after,) = children()
        assert after != before
    assert children() == set()


async def test_huge_logs_are_cut_to_the_traces_budget(tmp_path, level):
    """2 MB of console lines: the response is the handler's, the trace is within 256 KB."""
    write_javascript(
        tmp_path, "main", HOSTILE, r2_buckets=BUCKET, tail_consumers=[{"service": "seen"}]
    )
    write_javascript(
        tmp_path,
        "seen",
        """
        export default {
          fetch: () => new Response(),
          async tail([item], env) {
            await env.B.put("seen", `${item.truncated} ${JSON.stringify(item).length < 300_000}`);
          },
        };
        """,
        r2_buckets=BUCKET,
    )
    async with running(tmp_path, "main", "seen", isolation=level) as simulator:
        assert await ask(simulator, "http://x/logs") == (200, b"ok")
        assert not (await simulator.draining.drain(60)).left
        assert simulator.workers["main"].outcomes == {"ok": 1}
        assert simulator.workers["seen"].outcomes == {"ok": 1}


async def test_many_calls_at_a_time_are_all_answered(tmp_path, level):
    """500 calls of one invocation: none is lost, and the platform's connections are bounded."""
    write_javascript(tmp_path, "main", HOSTILE, r2_buckets=BUCKET)
    async with running(tmp_path, "main", isolation=level) as simulator:
        assert await ask(simulator, "http://x/calls") == (200, b"ok")
        assert len([each async for each in simulator.primitives.objects("bucket", "")]) == 500


async def test_replaced_builtins_harm_the_worker_alone(tmp_path, level):
    """A Worker that breaks JavaScript's own functions gets an error; the platform goes on."""
    write_javascript(tmp_path, "main", HOSTILE, r2_buckets=BUCKET)
    write_javascript(tmp_path, "other", HOSTILE, r2_buckets=BUCKET)
    async with running(tmp_path, "main", "other", isolation=level) as simulator:
        await ask(simulator, "http://x/builtins")
        assert await ask(simulator, worker="other") == (200, b"ok")


async def break_off(client: SocketStream) -> None:
    """Announce 9 MB, send 3 MB of them, close."""
    async with client:
        await client.receive()
        await client.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + bytes(3_000_000))


async def test_a_server_that_breaks_off_costs_its_request_alone(tmp_path, level):
    """A body from outside that ends too early: its reader gets an error, the Worker goes on."""
    write_javascript(tmp_path, "main", HOSTILE, r2_buckets=BUCKET)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/".encode()
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, break_off)
        async with running(tmp_path, "main", isolation=level) as simulator:
            for _ in range(3):
                status, _ = await ask(simulator, "http://x/cut", method="POST", body=url)
                assert status == 500
                with pytest.raises(EdgesimError, match="closed"):
                    await ask(simulator, "http://x/hand-on", method="POST", body=url)
                assert await ask(simulator) == (200, b"ok")
        tasks.cancel_scope.cancel()

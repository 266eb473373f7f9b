"""The cost of isolation; `make bench`.

In one run on one machine, so read the ratios: a bare fork in C and of bare Python; an invocation at
each level, the isolates alone; a bare ASGI application; the receiver behind the same HTTP server at
each level, alone (no Tail Worker) and with the whole chain into ClickHouse, where no event may be
lost.  Rounds are interleaved; figures are medians, minima and maxima.
"""

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import anyio

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from edgesim.clock import Clock
from edgesim.isolates.host import inline, process, warm
from edgesim.isolates.protocol.wire import Invoke
from edgesim.model import WorkerSpec
from tests.bench.load import BODY
from tests.ports import reserved_port
from tests.processes import WORKERS, dev

IDLE_SECONDS = 0.02
"""Pause between a response and the next request when measuring the latency of an idle project."""
LEVELS = {"process": process, "warm": warm, "inline": inline}
BARE = """
import sys, uvicorn
async def app(scope, receive, send):
    await receive()
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"OK"})
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False,
            http="httptools", loop="uvloop")
"""
HANDLER = """
import json
from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        event = json.loads(await request.text())
        print("PIPE_ME", json.dumps(event))
        return Response("OK")
"""


class Nobody:
    """The platform's side of an invocation that makes no calls."""

    depth = 0

    async def call(self, call):
        raise AssertionError(call)

    def log(self, log):
        pass

    def respond(self, response):
        pass

    def spent(self, cpu_ms):
        pass


def forks(times):
    """Return microseconds of each bare fork, C and Python."""
    command = [sys.executable, "-S", "-E", str(HERE / "fork.py"), str(times)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def invocations(level, times):
    """Return microseconds of each invocation, one after the other, the isolates alone."""

    async def run():
        folder = Path(tempfile.mkdtemp(prefix="edgesim-bench-"))
        (folder / "entry.py").write_text(HANDLER)
        event = {"method": "POST", "url": "http://x/", "headers": [], "body": BODY, "cf": {}}
        found = []
        clock = Clock()
        spec = WorkerSpec("bench", str(folder / "entry.py"))
        async with LEVELS[level].open_isolates(spec, clock) as isolates:
            for _ in range(times):
                started = time.perf_counter()
                done = await isolates.invoke(Invoke("fetch", event, clock.now()), Nobody())
                found.append((time.perf_counter() - started) * 1e6)
                assert done.outcome == "ok", done
        shutil.rmtree(folder)
        return found

    return anyio.run(run, backend_options={"use_uvloop": True})


def load(url, connections, requests, pause=0.0):
    """Run the load generator once; return requests per second and latencies."""
    parts = urlsplit(url)
    command = [sys.executable, str(HERE / "load.py"), parts.hostname, str(parts.port)]
    command += [str(connections), str(requests), str(pause)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert found["statuses"] == {"200": requests}, found
    return {"per_second": requests / found["seconds"], **found["latency_ms"]}


def bare(connections, requests, pause=0.0):
    """The reference: load on the same server with a bare ASGI application."""
    port = reserved_port()
    server = subprocess.Popen([sys.executable, "-c", BARE, str(port)])
    try:
        url = f"http://127.0.0.1:{port}/"
        while True:
            try:
                urllib.request.urlopen(url, b"").close()
                break
            except OSError:
                time.sleep(0.05)
        return load(url, connections, requests, pause)
    finally:
        server.kill()
        server.wait()


def receiver(level, connections, requests, *, chain, pause=0.0):
    """Load the receiver at one level; with the chain, every event must become a row."""
    folder = Path(tempfile.mkdtemp(prefix="edgesim-bench-"))
    try:
        project = folder / "workers"
        shutil.copytree(WORKERS, project, ignore=shutil.ignore_patterns(".edgesim"))
        if not chain:
            settings = project / "receiver" / "wrangler.jsonc"
            text = settings.read_text()
            assert '"tail_consumers"' in text
            settings.write_text(text.replace('"tail_consumers"', '"x_tail_consumers"'))
        options = ("--no-reload", "--quiet", "--isolation", level)
        with dev(project, folder / "state", *options) as running:
            load(running.url, connections, 50)
            found = load(running.url, connections, requests, pause)
            if chain:
                running.drain()
                [row] = running.sql("SELECT count() AS n FROM events")
                assert int(row["n"]) == requests + 50, row
            return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def fork_table(options):
    """Print and return microseconds of forks and of invocations, over all rounds."""
    found: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, values in forks(options.forks).items():
            found.setdefault(f"bare fork, {name}", []).extend(values)
        for level in LEVELS:
            found.setdefault(f"invocation, {level}", []).extend(invocations(level, options.forks))
    table = {name: spread(values) for name, values in found.items() if values}
    reference = table["bare fork, Python"]["median"]
    print(
        f"\n{'microseconds, one at a time':32} {'median':>9} {'least':>9} {'of a Python fork':>17}"
    )
    for name, row in table.items():
        row["of_a_python_fork"] = row["median"] / reference
        ratio = row["of_a_python_fork"]
        print(f"{name:32} {row['median']:9.0f} {row['least']:9.0f} {ratio:17.2f}")
    return table


def http_table(options):
    """Print and return requests per second over HTTP, and idle latency, over all rounds."""
    found: dict[str, list[dict[str, float]]] = {}
    idle: dict[str, list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        found.setdefault("bare ASGI app", []).append(bare(options.connections, options.events * 4))
        idle.setdefault("bare ASGI app", []).append(bare(1, options.idle, IDLE_SECONDS))
        for level in LEVELS:
            for chain in (False, True):
                name = f"receiver, {level}{', whole chain' if chain else ''}"
                events = options.events if level != "process" else options.events // 4
                found.setdefault(name, []).append(
                    receiver(level, options.connections, events, chain=chain)
                )
            idle.setdefault(f"receiver, {level}", []).append(
                receiver(level, 1, options.idle, chain=False, pause=IDLE_SECONDS)
            )
    reference = statistics.median(row["per_second"] for row in found["bare ASGI app"])
    table: dict[str, dict[str, object]] = {}
    title = f"requests/s, {options.connections} connections"
    print(
        f"\n{title:32} {'median':>9} {'least':>9} {'of the bare app':>16}"
        f" {'p50 ms':>8} {'p99 ms':>8}"
    )
    for name, rows in found.items():
        row = spread([each["per_second"] for each in rows])
        row["of_the_bare_app"] = row["median"] / reference
        row["p50_ms"] = statistics.median(each["p50"] for each in rows)
        row["p99_ms"] = statistics.median(each["p99"] for each in rows)
        table[name] = row
        print(
            f"{name:32} {row['median']:9.0f} {row['least']:9.0f} {row['of_the_bare_app']:16.2f}"
            f" {row['p50_ms']:8.2f} {row['p99_ms']:8.2f}"
        )
    print(f"\n{'idle, one connection':32} {'p50 ms':>9} {'p99 ms':>9}")
    for name, rows in idle.items():
        row = {q: statistics.median(each[q] for each in rows) for q in ("p50", "p99")}
        table.setdefault(name, {})["idle_ms"] = row
        print(f"{name:32} {row['p50']:9.2f} {row['p99']:9.2f}")
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=8_000, help="requests a round and level")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--idle", type=int, default=200, help="requests, one now and then")
    parser.add_argument("--forks", type=int, default=200, help="forks a round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    machine = f"{platform.platform()}, {platform.processor() or platform.machine()}"
    print(f"{machine}, Python {platform.python_version()}, {options.rounds} rounds")
    figures = {"machine": machine, "python": platform.python_version()}
    figures["microseconds"] = fork_table(options)
    figures["http"] = http_table(options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

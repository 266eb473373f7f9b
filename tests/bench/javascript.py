"""Requests/s of the receiver and its Tail Worker in JavaScript; `make bench`.

The same bundles on edgesim, on workerd alone and on Miniflare, and the Python edition on edgesim:
one run on one machine, rounds interleaved, so read the ratios.  edgesim writes every record to the
Pipeline's log, flushed; workerd and Miniflare, which have no Pipelines, count it in a Worker.  The
counts are compared with the requests: a trace that is lost is printed.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from edgesim.isolates.javascript.tools import find_program
from tests.bench.levels import load, spread
from tests.ports import reserved_port
from tests.processes import ROOT, WORKERS, dev

MODULES = ROOT / "tests" / "portability"
EXAMPLE = ROOT / "examples" / "javascript"
DATE = "2026-10-01"
VARIABLES = {"LOG_BYTES_MAX": "200000", "BODY_BYTES_MAX": "4900000", "ALLOWED_ORIGINS": "*"}
SETTLE_SECONDS = 60.0
SAID = "BENCH "
"""Prefix of the lines of miniflare.mjs."""
COUNTER = """
import { WorkerEntrypoint } from "cloudflare:workers";
let count = 0;
export default class extends WorkerEntrypoint {
  async send(records) { count += records.length; }
  async fetch() { return new Response(String(count)); }
}
"""
CONFIGURATION = """using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "receiver", worker = .receiver),
    (name = "tail", worker = .tail),
    (name = "counter", worker = .counter),
  ],
  sockets = [
    (name = "main", address = "127.0.0.1:{port}", http = (style = host), service = "receiver"),
    (name = "count", address = "127.0.0.1:{count}", http = (style = host), service = "counter"),
  ],
);
const receiver :Workerd.Worker = (
  compatibilityDate = "{date}",
  modules = [(name = "worker", esModule = embed "receiver.js")],
  bindings = [{bindings}],
  tails = ["tail"],
);
const tail :Workerd.Worker = (
  compatibilityDate = "{date}",
  modules = [(name = "worker", esModule = embed "tail.js")],
  bindings = [
    (name = "PIPELINE", service = "counter"), (name = "ERROR_PIPELINE", service = "counter"),
  ],
);
const counter :Workerd.Worker = (
  compatibilityDate = "{date}",
  modules = [(name = "worker", esModule = embed "counter.js")],
);
"""

Count = Callable[[], int]
"""Returns the number of records that have arrived behind the Tail Worker."""


def build(esbuild: Path, folder: Path) -> None:
    """Bundle the receiver and the Tail Worker, as edgesim does."""
    for name in ("receiver", "tail"):
        command = [str(esbuild), str(EXAMPLE / name / "src" / "index.ts"), "--bundle"]
        command += ["--format=esm", "--target=es2024", "--external:cloudflare:*"]
        subprocess.run([*command, f"--outfile={folder / name}.js", "--log-level=error"], check=True)
    (folder / "counter.js").write_text(COUNTER)


@contextmanager
def on_workerd(workerd: Path, folder: Path) -> Iterator[tuple[str, Count]]:
    """Serve on workerd alone."""
    port, count = reserved_port(), reserved_port()
    bindings = ", ".join(
        f'(name = "{name}", text = "{value}")' for name, value in VARIABLES.items()
    )
    settings = folder / "workerd.capnp"
    settings.write_text(CONFIGURATION.format(port=port, count=count, date=DATE, bindings=bindings))
    command = [str(workerd), "serve", "--experimental", str(settings)]
    quiet = subprocess.DEVNULL  # or every console.log of the receiver
    with subprocess.Popen(command, stdin=quiet, stdout=quiet) as process:
        try:
            counted = f"http://127.0.0.1:{count}/"
            until_there(counted, process)
            yield f"http://127.0.0.1:{port}/", lambda: int(read(counted))
        finally:
            process.kill()


@contextmanager
def on_miniflare(workerd: Path, folder: Path) -> Iterator[tuple[str, Count]]:
    """Serve on Miniflare, on the same workerd."""
    job = folder / "miniflare.json"
    names = ("receiver", "tail", "counter")
    files = {name: str(folder / f"{name}.js") for name in names}
    job.write_text(json.dumps(files | {"date": DATE, "vars": VARIABLES}))
    # A module is resolved from its own folder: the packages are those of the portability tests.
    script = folder / "miniflare.mjs"
    shutil.copy(HERE / "miniflare.mjs", script)
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(MODULES / "node_modules")
    with subprocess.Popen(
        [str(node()), str(script), str(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"MINIFLARE_WORKERD_PATH": str(workerd)},
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        ask, lines = process.stdin, process.stderr

        def said() -> str:
            return next(line for line in lines if line.startswith(SAID))[len(SAID) :].strip()

        def count() -> int:
            ask.write("\n")
            ask.flush()
            return int(said())

        try:
            yield said(), count
        finally:
            ask.close()
            process.wait(30)


@contextmanager
def on_edgesim(workers: Path, level: str, folder: Path) -> Iterator[tuple[str, Count]]:
    """Serve a project on edgesim, whose windows stay open meanwhile."""
    state = Path(tempfile.mkdtemp(dir=folder))
    with dev(workers, state, "--no-reload", "--quiet", "--isolation", level) as running:
        yield (
            running.url,
            lambda: running.stats()["pipelines"]["events"]["records"],
        )


def node() -> Path:
    """Node of the portability tests, else of this machine."""
    own = sorted((MODULES / "node_modules").glob("node-*/bin/node"))
    return own[0] if own else Path(shutil.which("node") or "node")


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def until_there(url: str, process: subprocess.Popen[bytes]) -> None:
    while True:
        try:
            read(url)
        except OSError:
            assert process.poll() is None, "workerd has ended"
            time.sleep(0.05)
        else:
            return


def settled(count: Count, wanted: int) -> int:
    """Return the count once it has arrived, or does not grow any more."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (found := count()) < wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def version(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def measure(options: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Return requests per second of each round, and the traces that were lost, by what served."""
    workerd = find_program("workerd", os.environ.get("EDGESIM_WORKERD"), MODULES)
    esbuild = find_program("esbuild", os.environ.get("EDGESIM_ESBUILD"), MODULES)
    os.environ |= {"EDGESIM_WORKERD": str(workerd), "EDGESIM_ESBUILD": str(esbuild)}
    found: dict[str, list[float]] = {}
    lost: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="edgesim-bench-") as name:
        folder = Path(name)
        build(esbuild, folder)
        served = {
            "workerd alone": (1, lambda: on_workerd(workerd, folder)),
            "Miniflare": (1, lambda: on_miniflare(workerd, folder)),
            "edgesim, JavaScript, warm": (2, lambda: on_edgesim(EXAMPLE, "warm", folder)),
            "edgesim, JavaScript, process": (16, lambda: on_edgesim(EXAMPLE, "process", folder)),
            "edgesim, Python, warm": (2, lambda: on_edgesim(WORKERS, "warm", folder)),
            "edgesim, Python, process": (8, lambda: on_edgesim(WORKERS, "process", folder)),
        }
        for _ in range(options.rounds):
            for what, (slower, serve) in served.items():
                requests = options.requests // slower
                with serve() as (url, count):
                    load(url, options.connections, 50)
                    rate = load(url, options.connections, requests)["per_second"]
                    found.setdefault(what, []).append(rate)
                    missing = requests + 50 - settled(count, requests + 50)
                    lost[what] = lost.get(what, 0) + missing
    return found, lost


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=16_000, help="a round, fewer where slow")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    found, lost = measure(options)
    miniflare = json.loads((MODULES / "node_modules" / "miniflare" / "package.json").read_text())
    machine = f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    versions = {
        "workerd": version([os.environ["EDGESIM_WORKERD"], "--version"]),
        "miniflare": miniflare["version"],
        "node": version([str(node()), "--version"]),
        "python": platform.python_version(),
    }
    print(machine)
    print(", ".join(f"{name} {each}" for name, each in versions.items()))
    reference = spread(found["workerd alone"])["median"]
    title = f"requests/s, {options.connections} connections"
    print(f"\n{title:30} {'median':>8} {'least':>8} {'of workerd':>11} {'traces lost':>12}")
    rows = {}
    for what, rates in found.items():
        row = spread(rates) | {"lost": lost[what]}
        row["of_workerd"] = row["median"] / reference
        rows[what] = row
        print(
            f"{what:30} {row['median']:8.0f} {row['least']:8.0f} {row['of_workerd']:11.3f}"
            f" {row['lost']:12}"
        )
    figures = {"machine": machine, "versions": versions, "requests": rows}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

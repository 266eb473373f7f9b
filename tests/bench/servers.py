"""The servers that the chain's benchmark compares: each runs on a free port until its block ends.

Each is a context manager that yields a Server, or raises Unavailable where its program is missing.
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from edgesim.errors import UsageError
from edgesim.isolates.javascript.tools import find_program
from tests.ports import reserved_port
from tests.processes import WORKERS, dev

HERE = Path(__file__).parent
JAVASCRIPT = HERE / "javascript"
PORTABILITY = HERE.parent / "portability"
MODULES = PORTABILITY / "node_modules"
READY_SECONDS = 90
LEVELS = ("process", "warm", "inline")
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


class Unavailable(Exception):  # noqa: N818 (not an error: the program is not installed)
    """A program is not installed here; the message names it."""


class Server(NamedTuple):
    """``rows`` returns how many events have reached the end; None for the bare application."""

    url: str
    pid: int
    rows: object


@contextmanager
def bare(_level):
    """A uvicorn server with an ASGI application that answers at once."""
    port = reserved_port()
    with _process(port, [sys.executable, "-c", BARE, str(port)]) as process:
        yield Server(f"http://127.0.0.1:{port}/", process.pid, None)


@contextmanager
def workerd(_level):
    """workerd alone, with a JavaScript receiver and Tail Worker."""
    port = reserved_port()
    command = [_native(), "serve", f"--socket-addr=http=127.0.0.1:{port}", "workerd.capnp"]
    with _process(port, command) as process:
        yield _counted(port, process)


@contextmanager
def miniflare(_level):
    """The same Workers in Miniflare."""
    port = reserved_port()
    command = [_node("miniflare"), "miniflare.mjs", str(port)]
    with _process(port, command) as process:
        yield _counted(port, process)


@contextmanager
def wrangler(_level):
    """The same Workers in ``wrangler dev``."""
    port = reserved_port()
    program = MODULES / "wrangler" / "bin" / "wrangler.js"
    command = [_node("wrangler"), str(program), "dev", "--port", str(port), "--inspector-port", "0"]
    command += ["-c", "receiver.wrangler.json", "-c", "tail.wrangler.json", "--log-level", "none"]
    with _process(port, command) as process:
        yield _counted(port, process)


@contextmanager
def edgesim(level):
    """The whole chain of this repository, into ClickHouse."""
    folder = Path(tempfile.mkdtemp(prefix="edgesim-bench-"))
    try:
        project = folder / "workers"
        shutil.copytree(WORKERS, project, ignore=shutil.ignore_patterns(".edgesim"))
        options = ("--no-reload", "--quiet", "--isolation", level)
        with dev(project, folder / "state", *options) as running:

            def rows():
                running.drain()
                return int(running.sql("SELECT count() AS n FROM events")[0]["n"])

            yield Server(running.url, running.process.pid, rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def versions():
    """Return the versions of the other runtimes, as far as npm has installed them."""
    found = {}
    for name in ("workerd", "miniflare", "wrangler"):
        file = MODULES / name / "package.json"
        if file.is_file():
            found[name] = json.loads(file.read_text())["version"]
    return found


def _native():
    try:
        return str(find_program("workerd", None, PORTABILITY))
    except UsageError as error:
        raise Unavailable("workerd (make portability)") from error


def _node(package):
    own = next(iter(sorted(MODULES.glob("node-*/bin/node"))), None) or shutil.which("node")
    if own is None or not (MODULES / package).is_dir():
        raise Unavailable(f"{package} (make portability)")
    return str(own)


def _counted(port, process):
    """A server whose Tail Worker counts; the count is complete once it stands still."""
    url = f"http://127.0.0.1:{port}/"

    def rows():
        before = -1
        while (now := int(urllib.request.urlopen(url, timeout=30).read())) != before:
            before = now
            time.sleep(0.5)
        return now

    return Server(url, process.pid, rows)


@contextmanager
def _process(port, command):
    process = subprocess.Popen(
        command,
        cwd=JAVASCRIPT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).close()
                break
            except OSError:
                assert process.poll() is None, command
                assert time.monotonic() < deadline, f"not ready: {command}"
                time.sleep(0.1)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

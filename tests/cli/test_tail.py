"""`edgesim tail`: invocations of a running project as they finish."""

import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from edgesim.observation.recent import READERS_MAX
from tests.processes import ROOT, Dev, dev, edgesim
from tests.simulated import write_worker

SOURCE = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        print("hello from", request.url)
        if "forge" in request.url:
            raise ValueError("x\\n12:00:00 two GET /admin 200 - ok")
        if "fail" in request.url:
            raise ValueError("broken on purpose")
        return Response("ok")
"""


@pytest.fixture
def running(tmp_path) -> Iterator[Dev]:
    write_worker(tmp_path, "one", SOURCE)
    write_worker(tmp_path, "two", SOURCE)
    (tmp_path / "edgesim.toml").write_text('workers = ["one", "two"]\n')
    with dev(tmp_path, tmp_path / "state", "--no-reload") as running:
        yield running


@contextmanager
def tailing(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``edgesim tail`` and wait until it is connected."""
    command = [sys.executable, "-m", "edgesim.cli", "tail", *options, "--project", str(folder)]
    with subprocess.Popen(
        [*command, "--state", str(folder / "state")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "tailing" in process.stderr.readline()
        try:
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


def test_pretty(running, tmp_path):
    """Each invocation is a line with its request, status and outcome, then its console lines."""
    with tailing(tmp_path, "--format", "pretty") as process:
        running.request("/a", method="GET")
        first, second = lines(process, 2)
        assert first.endswith(f" one GET {running.url}/a 200 - ok")
        assert second == f"  (log) hello from {running.url}/a"
        running.request("/forge", method="GET")
        found = lines(process, 2)
        while not found[-1].endswith("/admin 200 - ok"):
            found += lines(process, 1)
        assert found[-1] == "    12:00:00 two GET /admin 200 - ok"
        running.request("/fail", method="GET")
        assert lines(process, 3)[0].endswith(" one GET " + running.url + "/fail - exception")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_json_and_filters(running, tmp_path):
    """JSON lines are traces; filters select by outcome and text."""
    options = ("--format", "json", "--status", "error", "--search", "purpose")
    with tailing(tmp_path, *options) as process:
        running.request("/a", method="GET")
        running.request("/fail?1", method="GET")
        (line,) = lines(process, 1)
        item = json.loads(line)
        assert (item["scriptName"], item["outcome"]) == ("one", "exception")
        assert item["event"]["request"]["url"] == f"{running.url}/fail?1"
        assert "broken on purpose" in item["exceptions"][0]["message"]


def test_one_worker(running, tmp_path):
    """With a name only that Worker's invocations are shown."""
    with tailing(tmp_path, "two", "--format", "json") as process:
        running.request("/of-one", method="GET")
        running.request("/of-two", method="GET", headers={"host": "two.localhost"})
        (line,) = lines(process, 1)
        assert json.loads(line)["scriptName"] == "two"


def test_it_ends_with_the_project(running, tmp_path):
    """The end of the project ends the command, and does not wait for it."""
    with tailing(tmp_path) as process:
        assert running.stop() == 0
        assert process.wait(60) == 0


def test_refusals(running, tmp_path):
    """An unknown Worker and a project that does not run are usage errors."""
    done = edgesim("tail", "three", "--project", tmp_path, "--state", tmp_path / "state")
    assert (done.returncode, done.stderr) == (
        2,
        "edgesim: the project has no Worker 'three'; known: one, two\n",
    )
    done = edgesim("tail", "--project", tmp_path, "--state", tmp_path / "other")
    assert done.returncode == 2
    assert "start it with `edgesim dev`" in done.stderr


def test_readers_are_limited(running):
    """Streams of events beyond a number are refused, so that they cannot take all connections."""

    @contextmanager
    def reader() -> Iterator[int]:
        connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=60)
        with closing(connection):
            connection.request("GET", "/cdn-cgi/edgesim/events")
            with connection.getresponse() as answer:
                yield answer.status

    def status() -> int:
        with reader() as answer:
            return answer

    with ExitStack() as readers:
        for _ in range(READERS_MAX):
            assert readers.enter_context(reader()) == 200
        assert status() == 503
        assert running.request("/a", method="GET")[0] == 200
    deadline = time.monotonic() + 60
    while status() != 200:  # until the server has noticed that they are gone
        assert time.monotonic() < deadline

"""The log as it is shown on a terminal."""

import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from tests.processes import ROOT

WORKER = """
import sys
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        if request.url.endswith("/boom"):
            raise KeyError("boom")
        if request.url.endswith("/stop"):
            breakpoint()
        if request.url.endswith("/send"):
            await self.env.Q.sendBatch([{"body": {"n": number}} for number in range(3)])
        print('{"pasted": "into jq", "long": "' + "x" * 500 + '"}')
        print("in trouble", file=sys.stderr)
        return Response("ok")

    async def queue(self, batch, env, ctx):
        for message in batch.messages:
            message.ack() if message.body["n"] else message.retry()
"""
WRANGLER = {
    "name": "main",
    "main": "main.py",
    "compatibility_date": "2026-07-01",
    "compatibility_flags": ["python_workers"],
    "queues": {
        "producers": [{"binding": "Q", "queue": "q"}],
        "consumers": [{"queue": "q", "max_batch_timeout": 0}],
    },
}


@pytest.fixture
def project(tmp_path):
    worker = tmp_path / "project" / "main"
    worker.mkdir(parents=True)
    (worker / "main.py").write_text(WORKER)
    (worker / "wrangler.json").write_text(json.dumps(WRANGLER))
    (worker.parent / "edgesim.toml").write_text('workers = ["main"]\nentry = "main"\n')
    return worker.parent


class Terminal:
    """``edgesim dev`` with a pseudo-terminal for its log."""

    def __init__(self, project, *arguments):
        ours, theirs = os.openpty()
        state = project.parent / "state"
        command = [sys.executable, "-m", "edgesim.cli", "dev", project, "--port", "0"]
        self.process = subprocess.Popen(
            [*map(str, [*command, "--no-reload", "--state", state]), *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
        )
        os.close(theirs)
        self.shown = ""
        self._reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._reader.start()
        assert self.process.stdout is not None
        self._ready = self.process.stdout
        line = self._ready.readline()
        assert line.startswith("Ready on "), self.shown
        self.url = line.removeprefix("Ready on ").strip()

    def _read(self, fd):
        while True:
            try:
                self.shown += os.read(fd, 65536).decode()
            except OSError:  # EIO: the other end is closed
                os.close(fd)
                return

    def ask(self, path):
        command = ["curl", "-s", "-o", os.devnull, "-w", "%{http_code}", self.url + path]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def wait_for(self, pattern):
        deadline = time.monotonic() + 60
        while not (found := re.search(pattern, self.plain, re.MULTILINE)):
            assert time.monotonic() < deadline, self.plain
            time.sleep(0.02)
        return found

    @property
    def plain(self):
        return re.sub(r"\x1b\[[0-9;]*m", "", self.shown).replace("\r\n", "\n")

    def stop(self):
        self.process.terminate()
        assert self.process.wait(60) == 0
        self._reader.join(60)
        self._ready.close()


@pytest.fixture
def start(project):
    running = []

    def begin(*arguments):
        running.append(Terminal(project, *arguments))
        return running[-1]

    yield begin
    for each in running:
        each.stop()


def test_an_invocation_is_one_short_line(start):
    """Method, path, status and time; a queue batch reports the results of its messages."""
    terminal = start()
    assert terminal.ask("/send") == 200
    terminal.wait_for(r"^\S+ main +GET /send 200 (\d+|<1) ms$")
    terminal.wait_for(r"^\S+ main +queue q: 2 acked, 1 retried (\d+|<1) ms$")


def test_json_in_the_console_can_be_pasted(start):
    """The Worker's own line is printed whole and unchanged."""
    terminal = start()
    assert terminal.ask("/") == 200
    found = terminal.wait_for(r"^\S+ main +(\{.*\})$")
    assert json.loads(found[1])["pasted"] == "into jq"


def test_an_exception_names_the_status_that_the_client_got(start):
    """The last line of the traceback has the client's status, and so has the request's line."""
    terminal = start()
    assert terminal.ask("/boom") == 500
    terminal.wait_for(r"KeyError: 'boom' \(status 500\)$")
    terminal.wait_for(r"^\S+ main +GET /boom 500 exception (\d+|<1) ms$")


def test_a_breakpoint_names_the_level_that_has_a_terminal(start):
    """A debugger without a terminal ends the invocation, and the log says where it works."""
    terminal = start()
    assert terminal.ask("/stop") == 500
    terminal.wait_for(r"bdb\.BdbQuit \(status 500\)\n +a debugger .* --isolation inline$")


def test_quiet_leaves_what_went_wrong(start):
    """Only errors of the Worker's console and its exceptions are shown."""
    terminal = start("--quiet")
    assert terminal.ask("/") == 200
    assert terminal.ask("/boom") == 500
    terminal.wait_for(r"^\S+ main +in trouble$")
    terminal.wait_for(r"KeyError: 'boom' \(status 500\)$")
    assert "pasted" not in terminal.plain
    assert " 200 " not in terminal.plain

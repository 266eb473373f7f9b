"""Without Linux's parent-death signal no process outlives edgesim, whatever it is doing."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError

import pytest

from edgesim.system import VARIABLE
from tests.processes import Dev, alive, descendants, dev

WORKER = """
import threading
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        for name, hang in (("loop", loop), ("compute", compute), ("lock", lock)):
            if request.url.endswith(name):
                await self.env.BUCKET.put(name, "reached")
                hang()
        return Response("fine")

def loop():
    while True:
        pass

def compute():
    sum(range(10**15))  # in C, where no signal handler of Python's runs

def lock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
"""
HANGS = ["loop", "compute", "lock"]
WRANGLER = {
    "name": "main",
    "main": "main.py",
    "compatibility_date": "2026-10-01",
    "compatibility_flags": ["python_workers"],
    "r2_buckets": [{"binding": "BUCKET", "bucket_name": "marks"}],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Worker that hangs on request, in a portable edgesim."""
    monkeypatch.setenv(VARIABLE, "1")
    folder = tmp_path / "project" / "main"
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(WORKER)
    (folder / "wrangler.jsonc").write_text(json.dumps(WRANGLER))
    (folder.parent / "edgesim.toml").write_text('workers = ["main"]\n')
    return folder.parent


def wait_until(condition: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, problem
        time.sleep(0.02)


def wait_until_ended(processes: list[int]) -> None:
    """Wait until all have ended; a failing test leaves none behind either."""
    try:
        wait_until(lambda: not any(map(alive, processes)), f"left behind, of {processes}")
    finally:
        for pid in filter(alive, processes):
            os.kill(pid, signal.SIGKILL)


def ask(running: Dev, path: str) -> None:
    """Send a request that is not answered before the server is killed."""
    with suppress(OSError, URLError):
        running.request(path, b"")


def kill(running: Dev) -> None:
    """Kill the server; every process that it has started must end."""
    processes = descendants(running.process.pid)
    assert len(processes) > 3, processes
    running.process.send_signal(signal.SIGKILL)
    running.process.wait(60)
    wait_until_ended(processes)


@pytest.mark.parametrize("level", ["process", "warm"])
def test_none_outlives_a_killed_edgesim(project, tmp_path, level):
    """Isolates that loop, compute in C or wait for a lock end with it, as do zygote and engine."""
    with dev(project, tmp_path / "state", "--no-reload", "--isolation", level) as running:
        assert running.sql("SELECT 1 AS n") == [{"n": 1}]
        for name in HANGS:
            threading.Thread(target=ask, args=(running, f"/{name}"), daemon=True).start()
        wait_until(
            lambda: reached(running) == len(HANGS),
            "a handler did not begin",
        )
        kill(running)


def test_a_zygote_that_imports_for_ever_ends(project, tmp_path):
    """A module that never finishes its import, and so reads no message, ends with edgesim."""
    main = project / "main" / "main.py"

    def is_importing() -> bool:
        if len(zygotes(running)) == 1:  # the server may not watch the files yet
            main.write_text("while True:\n    pass\n")
        return any(cpu_seconds(pid) > 0.5 for pid in zygotes(running))

    with dev(project, tmp_path / "state") as running:
        wait_until(is_importing, "the edited module was not imported")
        kill(running)


def test_a_killed_zygote_takes_its_isolates_along(project, tmp_path):
    """Isolates of a killed zygote end, though their channels to edgesim are still open."""
    with dev(project, tmp_path / "state", "--no-reload", "--isolation", "warm") as running:
        threading.Thread(target=ask, args=(running, "/lock"), daemon=True).start()
        wait_until(lambda: reached(running) == 1, "the handler did not begin")
        (zygote,) = zygotes(running)
        forks = descendants(zygote)
        assert forks
        os.kill(zygote, signal.SIGKILL)
        wait_until_ended(forks)
        running.wait_log("worker restarted")


def reached(running: Dev) -> int:
    """Number of handlers that are about to hang."""
    objects: int = running.stats()["r2"]["marks"]["objects"]
    return objects


def zygotes(running: Dev) -> list[int]:
    """Pids of the server's own children that are zygotes."""
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    return [
        int(pid)
        for pid in children.read_text().split()
        if b"guest.zygote" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""No process that a module forks past Python during its import outlives its Worker."""

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from edgesim.errors import WorkerLoadError
from edgesim.isolates.host.strays import end_strays, strays
from tests.isolation.world import open_world
from tests.processes import dev

pytestmark = [pytest.mark.anyio, pytest.mark.linux]

HONEST = """
from workers import Response, WorkerEntrypoint
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("fine")
"""
START = """
import os, select, signal
guard = os.walk.__globals__["sys"].modules["edgesim.isolates.guest.guard"]  # it cannot be imported
mark = os.open(__file__, os.O_RDONLY)  # by which the test finds them
number, flags = (57, 0) if os.uname().machine == "x86_64" else (220, 17)
def fork():
    return guard._sealing._syscall(number, flags, 0, None)
def stay():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        select.select([], [], [], 1)
def orphan():
    if fork() == 0:
        if fork() == 0:
            stay()
        os._exit(0)
"""
AT_IMPORT = {
    "child": "if fork() == 0: stay()",
    "orphan": "orphan()\nselect.select([], [], [], 0.2)",
    "family": "if fork() == 0:\n    fork()\n    fork()\n    stay()",
    "many": "for _ in range(20): orphan()",
}
LATER = """
def later(*_):
    signal.setitimer(signal.ITIMER_REAL, 0)
    orphan()
try:
    signal.signal(signal.SIGALRM, later)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
except PermissionError:
    pass  # in an isolate
"""


def worker(folder: Path, code: str) -> Path:
    main = folder / "main" / "main.py"
    main.parent.mkdir(parents=True)
    main.write_text(f"{START}\n{code}\n{HONEST}")
    return main


def holders(main: Path) -> list[int]:
    """Return the PIDs of the processes that have the Worker's file open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # The process or its descriptor may be gone at any step.
        with suppress(OSError):
            for each in (process / "fd").iterdir():
                with suppress(OSError):
                    if each.readlink() == main:
                        found.append(int(process.name))
    return found


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.parametrize("name", AT_IMPORT)
async def test_a_module_that_leaves_processes_is_refused(name, tmp_path):
    """The import fails with one line; children, orphans and signal-blocking processes are ended."""
    main = worker(tmp_path, AT_IMPORT[name])
    with pytest.raises(WorkerLoadError, match="started processes while it was imported"):
        async with open_world("process", main):
            pass
    wait_until(lambda: not holders(main), "a stray process is left")


@pytest.mark.parametrize("ending", ["os._exit(0)", "raise ValueError('no')", "while True: pass"])
async def test_a_failed_import_leaves_none(ending, tmp_path, monkeypatch):
    """Processes that an import forked end with it, however it fails."""
    monkeypatch.setattr("edgesim.isolates.host.zygotes.BOOT_SECONDS", 4.0)
    main = worker(tmp_path, f"orphan()\n{ending}")
    with pytest.raises(WorkerLoadError):
        async with open_world("process", main):
            pass
    wait_until(lambda: not holders(main), "a stray process is left")


@pytest.mark.parametrize("level", ["process", "warm"])
async def test_what_is_forked_later_ends_with_the_zygote(level, tmp_path):
    """A process forked later, by code that the import left behind, ends with the zygote."""
    main = worker(tmp_path, LATER)
    async with open_world(level, main) as world:
        assert (await world.fetch("")).body == b"fine"
        zygote = world.isolates._forks._zygote  # type: ignore[attr-defined]
        wait_until(lambda: set(holders(main)) - {zygote}, "nothing was forked")
    wait_until(lambda: not holders(main), "a stray process is left")


def test_a_killed_server_leaves_none(tmp_path):
    """SIGKILL of the platform ends the stray processes too."""
    main = worker(tmp_path / "project", LATER)
    wrangler = {
        "name": "main",
        "main": "main.py",
        "compatibility_date": "2026-10-01",
        "compatibility_flags": ["python_workers"],
    }
    (main.parent / "wrangler.jsonc").write_text(json.dumps(wrangler))
    account = 'workers = ["main"]\n[backends]\nr2 = "memory:"\nqueues = "memory:"\n'
    (main.parents[1] / "edgesim.toml").write_text(account)
    with dev(main.parents[1], tmp_path / "state", "--no-reload") as running:
        wait_until(lambda: len(holders(main)) > 1, "nothing was forked")
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(60)
        wait_until(lambda: not holders(main), "a stray process is left")


WITHOUT_NAMESPACES = """
import os, time
from edgesim.jail import family
family._enter_namespace = lambda libc: False
assert family.found_family().kind == family.SUBREAPER
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        os.write(write, b"x")
        time.sleep(60)
    os._exit(0)
os.wait()
os.read(read, 1)
print("ready", flush=True)
input()
"""


def test_without_namespaces_orphans_are_found():
    """Orphans become children of the zygote, and the platform ends them there."""
    with subprocess.Popen(
        [sys.executable, "-c", WITHOUT_NAMESPACES], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        found = strays(process.pid)
        assert len(found) == 1
        end_strays(process.pid)
        stat = Path(f"/proc/{found[0]}/stat")
        wait_until(
            lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z",
            "the orphan is left",
        )
        process.communicate(b"\n")

"""workerd and its files end with edgesim, however that ends, and with nothing else."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.javascript_world import programs, write_javascript
from tests.processes import ROOT

pytestmark = [pytest.mark.linux, pytest.mark.timeout(300)]

SECONDS_MAX = 90
SOURCE = "export default { fetch: () => new Response('ok') };"
PREFIX = "edgesim-scratch-js-"


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files; its path is short, since sockets are below it."""
    with tempfile.TemporaryDirectory(prefix="ends-") as folder:
        yield Path(folder)


@contextmanager
def started(folder: Path, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """Start ``edgesim dev`` with two Workers, in a group of its own."""
    for name in ("main", "other"):
        write_javascript(folder, name, SOURCE)
    (folder / "edgesim.toml").write_text(
        'workers = ["main", "other"]\nisolation = "warm"\n[backends]\nr2 = "memory:"\n'
        'queues = "memory:"\n'
    )
    found = programs()
    variables = {
        "TMPDIR": str(temporary),
        "EDGESIM_WORKERD": str(found.workerd),
        "EDGESIM_ESBUILD": str(found.esbuild),
    }
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "edgesim.cli", "dev", str(folder), "--port", "0"),
            *("--state", str(folder / "state"), "--no-reload"),
        ],
        cwd=ROOT,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def ready(process: subprocess.Popen[str]) -> str:
    """Wait for the ready line; return the URL."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ready on "):
            return line.split()[2]
    raise AssertionError("".join(lines))


def children(temporary: Path) -> dict[int, str]:
    """Processes whose arguments name the folder, but for edgesim itself: name by id."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            name = (folder / "comm").read_text().strip()
        except OSError:
            continue
        if any(str(temporary).encode() in each for each in arguments):
            found[int(folder.name)] = name
    return found


def workerds(temporary: Path) -> list[int]:
    return [number for number, name in children(temporary).items() if name == "workerd"]


def folders(temporary: Path) -> list[str]:
    return sorted(each.name for each in temporary.iterdir() if each.name.startswith(PREFIX))


def test_a_killed_edgesim_leaves_no_process_and_few_files(tmp_path, temporary):
    """kill -9: workerd ends at once, its files go when edgesim starts again, and then all do."""
    for _ in range(3):
        with started(tmp_path, temporary) as process:
            ready(process)
            assert len(workerds(temporary)) == 2
            assert len(folders(temporary)) == 2  # none of the runs before
            process.kill()
            until(lambda: not children(temporary), "workerd outlives edgesim")
    with started(tmp_path, temporary) as process:
        ready(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS_MAX) == 0
    assert folders(temporary) == []
    assert children(temporary) == {}


@pytest.mark.parametrize("file", ["esbuild.log", "workerd.capnp", "1.in", "1.out"])
def test_a_kill_during_the_start_leaves_no_process(tmp_path, temporary, file):
    """kill -9 while esbuild builds, while workerd is jailed, and while it starts."""
    with started(tmp_path, temporary) as process:
        until(lambda: any(temporary.glob(f"{PREFIX}*/files/{file}")), f"no {file}")
        process.kill()
        until(lambda: not children(temporary), "processes outlive edgesim")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_of_a_service_do_not_end_workerd(tmp_path, temporary, number):
    """A signal to every process of a service: edgesim itself ends its children, after its work."""
    with started(tmp_path, temporary) as process:
        ready(process)
        found = workerds(temporary)
        assert all(os.getsid(each) != os.getsid(process.pid) for each in found)
        for each in found:
            os.kill(each, number)
        assert all(is_ignored(each, number) for each in found)
        assert workerds(temporary) == found


def is_ignored(process: int, number: int) -> bool:
    """True if a process ignores a signal, so that it cannot be ended by one that is pending."""
    status = (Path("/proc") / str(process) / "status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(mask, 16) >> (number - 1) & 1)

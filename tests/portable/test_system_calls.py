"""A portable edgesim uses nothing that Linux alone has: its system calls, as strace sees them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgesim.system import VARIABLE
from tests.processes import ROOT, WORKERS, Dev

STRACE = shutil.which("strace")
FORKS = ("fork", "vfork", "clone", "clone3")
ONLY_LINUX = (
    *("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"),
    *("memfd_create", "pidfd_open", "pidfd_send_signal", "pidfd_getfd", "unshare", "setns"),
    *("syncfs", "process_vm_readv", "sendfile", "splice", "copy_file_range", "name_to_handle_at"),
    *("sched_getaffinity", "sched_setaffinity", "signalfd4", "prctl"),
)
ON_FILES = (
    *("open", "openat", "stat", "lstat", "newfstatat", "statx", "readlink", "readlinkat"),
    *("access", "faccessat", "faccessat2", "bind", "getsockopt"),
)
FOUND = {
    "/proc": re.compile(r'"/proc/'),
    "abstract socket": re.compile(r"sun_path=@"),
    "SO_PEERCRED": re.compile(r"SO_PEERCRED"),
    **{name: re.compile(rf"^{name}\(") for name in ONLY_LINUX},
}
OF_LIBRARIES = (
    re.compile(r"^prctl\(PR_SET_NAME"),  # pthread_setname, which macOS has too
    re.compile(r'"/proc/version_signature"'),  # libuv: the version of Ubuntu's kernel
)
EVENT = {"event": "kill", "player_id": "p1", "ts": 1767225600000, "props": {"damage": 7}}

WORKER = """
from workers import Response, WorkerEntrypoint
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("fine")
"""


def can_trace() -> bool:
    if STRACE is None:
        return False
    return subprocess.run([STRACE, "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_trace(), reason="needs strace, and the right to trace")


@contextmanager
def traced(project: Path, state: Path, trace: Path, *, portable: bool) -> Iterator[Dev]:
    """Run ``edgesim dev`` under strace until it is ready, and stop it afterwards."""
    calls = ",".join(f"?{name}" for name in (*ONLY_LINUX, *ON_FILES, *FORKS, "execve"))
    command = [
        *(str(STRACE), "-f", "-qq", "-e", f"trace={calls}", "-e", "signal=none", "-o", trace),
        *(sys.executable, "-m", "edgesim.cli", "dev", project, "--port", "0", "--state", state),
    ]
    log = trace.with_suffix(".log")
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | {VARIABLE: "1" if portable else ""},
        )
    with process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        try:
            if ready.startswith("Ready on "):
                yield Dev(process, ready.removeprefix("Ready on ").strip(), [])
        finally:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            for pid in children.read_text().split():
                os.kill(int(pid), signal.SIGTERM)  # not strace itself
    assert process.returncode == 0, log.read_text()


class Trace:
    """System calls by process, and the processes of the embedded engine."""

    def __init__(self, file: Path) -> None:
        self.calls = [
            (pid, call.strip())
            for pid, _, call in (line.partition(" ") for line in file.read_text().splitlines())
        ]
        self.engine = {
            pid
            for pid, call in self.calls
            if call.startswith("execve(") and "clickhouse.chdb.process" in call
        }
        made = re.compile(rf"(?:<\.\.\. )?(?:{'|'.join(FORKS)})(?:\(| resumed).* = (\d+)")
        for pid, call in self.calls:
            child = made.match(call)
            if child and pid in self.engine:
                self.engine.add(child[1])

    def only_linux(self, *, engine: bool) -> dict[str, str]:
        """Kind of each use of what only Linux has -> one such call."""
        return {
            kind: call
            for pid, call in self.calls
            if (pid in self.engine) is engine
            and not any(each.search(call) for each in OF_LIBRARIES)
            for kind, pattern in FOUND.items()
            if pattern.search(call)
        }


def test_a_portable_edgesim_uses_nothing_of_linux(tmp_path):
    """From start to stop, with one event through every stage into a row.

    The engine is another binary on macOS: here it reads /proc and names its threads by itself.
    """
    file = tmp_path / "trace"
    with traced(WORKERS, tmp_path / "state", file, portable=True) as running:
        assert running.post(EVENT) == 200
        running.drain()
        assert running.sql("SELECT count() AS n FROM events") == [{"n": 1}]
    trace = Trace(file)
    assert trace.only_linux(engine=False) == {}
    assert len(trace.engine) > 1
    its_own = {"/proc", "prctl", "sched_getaffinity", "sched_setaffinity"}
    assert trace.only_linux(engine=True).keys() <= its_own


def test_the_trace_shows_what_linux_has(tmp_path):
    """The same look at an ordinary edgesim finds its uses of Linux: the search can fail."""
    main = tmp_path / "main" / "main.py"
    main.parent.mkdir()
    main.write_text(WORKER)
    wrangler = {
        "name": "main",
        "main": "main.py",
        "compatibility_date": "2026-10-01",
        "compatibility_flags": ["python_workers"],
    }
    (main.parent / "wrangler.jsonc").write_text(json.dumps(wrangler))
    (tmp_path / "edgesim.toml").write_text('workers = ["main"]\n')
    file = tmp_path / "trace"
    with traced(tmp_path, tmp_path / "state", file, portable=False):
        pass
    found = Trace(file).only_linux(engine=False)
    assert {"/proc", "abstract socket", "prctl", "landlock_create_ruleset"} <= found.keys()

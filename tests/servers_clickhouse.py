"""A real ClickHouse server for tests, on free ports and in its own folder."""

import os
import shlex
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CONFIG = """<yandex><logger><level>error</level><console>1</console></logger>
<http_port>{http}</http_port><tcp_port>{tcp}</tcp_port>{tls}<listen_host>127.0.0.1</listen_host>
<path>{folder}/data/</path><tmp_path>{folder}/tmp/</tmp_path>
<mark_cache_size>67108864</mark_cache_size><keep_alive_timeout>1</keep_alive_timeout>
<users_config>{folder}/config.xml</users_config>
<profiles><default/></profiles><quotas><default/></quotas>
<users><default><password>{password}</password><networks><ip>127.0.0.1</ip></networks>
<profile>default</profile><quota>default</quota></default></users></yandex>"""
READY_SECONDS = 30.0


TLS = """<https_port>{https}</https_port><tcp_port_secure>{tcps}</tcp_port_secure>
<openSSL><server><certificateFile>{folder}/cert.pem</certificateFile>
<privateKeyFile>{folder}/key.pem</privateKeyFile><verificationMode>none</verificationMode>
<loadDefaultCAFile>false</loadDefaultCAFile></server></openSSL>"""


class Server:
    """A server that can be killed and restarted on the same ports with the same data."""

    def __init__(self, folder: Path, password: str = "", *, tls: bool = False) -> None:
        self.http, self.tcp = free_port(), free_port()
        self.https, self.tcps = free_port(), free_port()
        self.config = folder / "config.xml"
        secure = TLS.format(https=self.https, tcps=self.tcps, folder=folder) if tls else ""
        if tls:
            self._certify(folder)
        self.config.write_text(
            CONFIG.format(
                http=self.http, tcp=self.tcp, folder=folder, password=password, tls=secure
            )
        )
        self.command = f"clickhouse-server --config-file={self.config}"

    def start(self) -> None:
        """Start the server and wait until it replies."""
        self.process = subprocess.Popen(
            shlex.split(self.command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _wait_ready(self.process, self.http)

    def kill(self) -> None:
        """Send SIGKILL and wait for the process to exit."""
        self.process.kill()
        self.process.wait()

    def _certify(self, folder: Path) -> None:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
                *("-keyout", folder / "key.pem", "-out", folder / "cert.pem"),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            ],
            check=True,
            capture_output=True,
        )


def prepared_server(folder: Path, password: str = "", *, tls: bool = False) -> Server:
    """Return a server that can be started repeatedly; without the program skip, or fail in CI."""
    for command in ("clickhouse-server", *(["openssl"] if tls else [])):
        if shutil.which(command) is None:
            reason = f"no {command} on PATH (Debian: apt-get install {command})"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
    return Server(folder, password, tls=tls)


@contextmanager
def running_server(folder: Path, password: str = "", *, tls: bool = False) -> Iterator[Server]:
    """Run a server."""
    server = prepared_server(folder, password, tls=tls)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def clickhouse_server(folder: Path) -> Iterator[tuple[int, int]]:
    """Run a server and yield (HTTP port, native port); without the program skip, or fail in CI."""
    with running_server(folder) as server:
        yield server.http, server.tcp


def _wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        assert process.poll() is None, f"clickhouse-server ended with {process.returncode}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1):
                return
        except OSError:
            assert time.monotonic() < deadline, "clickhouse-server does not answer"
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

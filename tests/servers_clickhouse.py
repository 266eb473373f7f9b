"""A real ClickHouse server for tests, on free ports and in its own folder."""

import os
import shlex
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import reserved_port

CONFIG = """<yandex><logger><level>error</level><console>1</console></logger>
<http_port>{http}</http_port><tcp_port>{tcp}</tcp_port>{tls}<listen_host>127.0.0.1</listen_host>
<path>{folder}/data/</path><tmp_path>{folder}/tmp/</tmp_path>
<mark_cache_size>67108864</mark_cache_size><keep_alive_timeout>1</keep_alive_timeout>
<users_config>{folder}/config.xml</users_config>
<profiles><default/></profiles><quotas><default/></quotas>
<users><default><password>{password}</password><networks><ip>127.0.0.1</ip></networks>
<profile>default</profile><quota>default</quota></default></users></yandex>"""
READY_SECONDS = 120.0


TLS = """<https_port>{https}</https_port><tcp_port_secure>{tcps}</tcp_port_secure>
<openSSL><server><certificateFile>{folder}/cert.pem</certificateFile>
<privateKeyFile>{folder}/key.pem</privateKeyFile><verificationMode>none</verificationMode>
<loadDefaultCAFile>false</loadDefaultCAFile></server></openSSL>"""


class Server:
    """A server that can be killed and restarted on the same ports with the same data."""

    def __init__(self, folder: Path, password: str = "", *, tls: bool = False) -> None:
        self.http, self.tcp = reserved_port(), reserved_port()
        self.https, self.tcps = reserved_port(), reserved_port()
        self.config = folder / "config.xml"
        self._log = folder / "log"
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
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(shlex.split(self.command), stdout=log, stderr=log)
        self._wait_ready()

    def kill(self) -> None:
        """Send SIGKILL and wait for the process to exit."""
        self.process.kill()
        self.process.wait()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/ping", timeout=1):
                    return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    log = self._log.read_text(errors="replace")[-3000:]
                    raise AssertionError(
                        f"no clickhouse-server, exit status {self.process.poll()}:\n{log}"
                    ) from error
                time.sleep(0.05)

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

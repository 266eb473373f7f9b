"""A real ClickHouse server for tests: started on free ports, in a folder of its own."""

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
from typing import NamedTuple

import pytest

CONFIG = """<yandex><logger><level>error</level><console>1</console></logger>
<http_port>{http}</http_port><tcp_port>{tcp}</tcp_port><listen_host>127.0.0.1</listen_host>
<path>{folder}/data/</path><tmp_path>{folder}/tmp/</tmp_path>
<mark_cache_size>67108864</mark_cache_size><keep_alive_timeout>1</keep_alive_timeout>
<users_config>{folder}/config.xml</users_config>
<profiles><default/></profiles><quotas><default/></quotas>
<users><default><password></password><networks><ip>127.0.0.1</ip></networks>
<profile>default</profile><quota>default</quota></default></users></yandex>"""
READY_SECONDS = 30.0


class PreparedServer(NamedTuple):
    """A server that may be started, any number of times."""

    command: str
    http: int
    tcp: int


def prepared_server(folder: Path) -> PreparedServer:
    """Configuration and data in ``folder``, free ports; skips without a server, fails in CI."""
    if shutil.which("clickhouse-server") is None:
        reason = "no clickhouse-server on PATH (Debian: apt-get install clickhouse-server)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    http, tcp = _free_port(), _free_port()
    config = folder / "config.xml"
    config.write_text(CONFIG.format(http=http, tcp=tcp, folder=folder))
    return PreparedServer(f"clickhouse-server --config-file={config}", http, tcp)


@contextmanager
def clickhouse_server(folder: Path) -> Iterator[tuple[int, int]]:
    """(HTTP port, native port) of a running server."""
    server = prepared_server(folder)
    process = subprocess.Popen(
        shlex.split(server.command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_ready(process, server.http)
        yield server.http, server.tcp
    finally:
        process.kill()
        process.wait()


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

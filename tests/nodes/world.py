"""Nodes of ``edgesim serve`` on real servers, and a load that records acknowledged ids."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.ports import reserved_port
from tests.processes import Dev, dev, freeze
from tests.servers_clickhouse import CONFIG
from tests.servers_nats import NatsServer, nats_server
from tests.servers_s3 import Seaweed, seaweedfs_process

ACCOUNT = """
workers = ["main", "insert"]
[pipelines.events]
bucket = "events"
max_seconds = 1
[[r2.events.notifications]]
queue = "ingest"
[clickhouse]
schema = "schema.sql"
"""
SCHEMA = "CREATE TABLE IF NOT EXISTS seen (id String) ENGINE = MergeTree() ORDER BY id"
MAIN = """
from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        await self.env.PIPELINE.send(await request.json())
        return Response("acknowledged")
"""
INSERT = """
from workers import WorkerEntrypoint

URL = "http://clickhouse/?query=INSERT+INTO+seen+FORMAT+JSONEachRow"


class Default(WorkerEntrypoint):
    async def queue(self, batch, env=None, ctx=None):
        for message in batch.messages:
            try:
                found = await self.env.EVENTS.get(message.body["object"]["key"])
                headers = {"content-encoding": "gzip"}
                answer = await self.env.CLICKHOUSE.fetch(
                    URL, method="POST", headers=headers, body=found.body
                )
                problem = None if answer.ok else await answer.text()
            except Exception as error:  # a store that is away is an ordinary exception
                problem = error
            if problem is None:
                message.ack()
            else:
                print(f"insert failed: {problem}")
                message.retry(delaySeconds=0.5)
"""
SETTINGS: dict[str, dict[str, Any]] = {
    "main": {"pipelines": [{"binding": "PIPELINE", "stream": "events"}]},
    "insert": {
        "r2_buckets": [{"binding": "EVENTS", "bucket_name": "events"}],
        "services": [{"binding": "CLICKHOUSE", "service": "clickhouse"}],
        "queues": {
            "consumers": [{"queue": "ingest", "max_batch_timeout": 0, "max_retries": 100}],
        },
    },
}
OURS = '"event": "internal error'
"""Log text of a fault in edgesim itself.  (S3 has an `internal error` of its own too.)"""
PASSWORD = "right"
"""Password of the servers; each accepts only this one until it is revoked."""
PAUSE_SECONDS = 0.02
"""Pause between requests of one client, in seconds: the load is not a benchmark."""


def write_project(folder: Path) -> Path:
    """Write a Worker that responds 200 once PIPELINE.send has returned, and one that inserts."""
    folder.mkdir(parents=True)
    (folder / "edgesim.toml").write_text(ACCOUNT)
    (folder / "schema.sql").write_text(SCHEMA)
    for name, source in (("main", MAIN), ("insert", INSERT)):
        worker = folder / name
        worker.mkdir()
        (worker / f"{name}.py").write_text(source)
        settings = {
            "name": name,
            "main": f"{name}.py",
            "compatibility_date": "2026-10-01",
            "compatibility_flags": ["python_workers"],
        }
        (worker / "wrangler.jsonc").write_text(json.dumps(settings | SETTINGS[name]))
    return folder


class ClickHouse:
    """A server that can be killed, frozen and restarted on the same data."""

    def __init__(self, folder: Path) -> None:
        self.http, tcp = reserved_port(), reserved_port()
        self._config = folder / "config.xml"
        self._log = folder / "log"
        self._config.write_text(
            CONFIG.format(http=self.http, tcp=tcp, folder=folder, password=PASSWORD, tls="")
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; ``wait`` waits for a reply.  Without one, skip, or fail in CI."""
        if shutil.which("clickhouse-server") is None:
            reason = "no clickhouse-server on PATH (Debian: apt-get install clickhouse-server)"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["clickhouse-server", f"--config-file={self._config}"], stdout=log, stderr=log
            )

    def wait(self) -> None:
        process = self._process
        assert process is not None
        until(lambda: self._answers() or process.poll() is not None)
        assert process.poll() is None, f"clickhouse-server exited: {self._log.read_text()}"

    def kill(self) -> None:
        """Send SIGKILL and wait for the process to exit."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ask(self, query: str) -> str:
        """Run a query on the server itself, without edgesim, and return the reply's text."""
        url = f"http://127.0.0.1:{self.http}/?password={PASSWORD}&query={quote(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return str(answer.read().decode())

    def take_password(self, password: str) -> None:
        """Change the password and wait for it; the server reloads its users every two seconds."""
        text = self._config.read_text()
        changed = re.sub("<password>.*</password>", f"<password>{password}</password>", text)
        self._config.write_text(changed)
        until(lambda: self._answers() == (password == PASSWORD))

    def _answers(self) -> bool:
        with suppress(OSError):
            return self.ask("SELECT 1") == "1\n"
        return False


def start(server: NatsServer | Seaweed | ClickHouse) -> None:
    """Start the server on its existing data and wait until it is ready."""
    server.start()
    if not isinstance(server, Seaweed):
        server.wait()


def end(server: NatsServer | Seaweed | ClickHouse) -> None:
    """Send SIGTERM, as an operator does, and wait for the process to exit."""
    send(server, signal.SIGTERM)
    assert server._process is not None
    server._process.wait(60)


def send(server: NatsServer | Seaweed | ClickHouse, number: int) -> None:
    """Send a signal to its process."""
    assert server._process is not None
    if number == signal.SIGSTOP:
        freeze(server._process.pid)
    else:
        server._process.send_signal(number)


class Servers:
    """The three servers that the nodes share, and queries of the table."""

    def __init__(self, nats: NatsServer, s3: Seaweed, clickhouse: ClickHouse) -> None:
        self.nats = nats
        self.s3 = s3
        self.clickhouse = clickhouse
        self.variables = {
            "EDGESIM_S3_ACCESS_KEY": s3.server.access_key,
            "EDGESIM_S3_SECRET_KEY": s3.server.secret_key,
            "EDGESIM_NATS_USER": "node",
            "EDGESIM_NATS_PASSWORD": PASSWORD,
            "EDGESIM_CLICKHOUSE_USER": "default",
            "EDGESIM_CLICKHOUSE_PASSWORD": PASSWORD,
        }
        place = uuid.uuid4().hex[:8]
        self.arguments = (
            *("--r2", f"s3://{s3.server.address}?secure=false&region=us-east-1&timeout=2"),
            *("--queues", f"nats://{nats.address}/{place}?ack_wait=2"),
            *("--clickhouse", f"clickhouse+http://127.0.0.1:{clickhouse.http}"),
        )

    def rows(self) -> Counter[str]:
        """Return id -> number of rows in the table."""
        return Counter(self.clickhouse.ask("SELECT id FROM seen").split())

    def wait_for(self, ids: set[str]) -> Counter[str]:
        """Wait until the table has all ids and return its rows."""
        missing = ids

        def all_there() -> bool:
            nonlocal missing
            with suppress(OSError):  # the table does not exist yet
                missing = ids - self.rows().keys()
            return not missing

        try:
            until(all_there, 40, pause=0.2)
        except AssertionError as error:
            raise AssertionError(f"{len(missing)} of {len(ids)} acknowledged are lost") from error
        return self.rows()


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Run all three; without one of the programs skip, or fail if CI=true."""
    for name in ("nats", "s3", "clickhouse"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    clickhouse = ClickHouse(folder / "clickhouse")
    rights = f"authorization {{ user: node, password: {PASSWORD} }}\n"
    with nats_server(folder / "nats", rights) as nats, seaweedfs_process(folder / "s3") as s3:
        try:
            clickhouse.start()
            clickhouse.wait()
            yield Servers(nats, s3, clickhouse)
        finally:
            clickhouse.kill()


def revoke(shared: Servers, name: str) -> None:
    """Make the node's password or secret key invalid at this server."""
    match name:
        case "nats":
            shared.nats.reconfigure(PASSWORD, "another")
        case "s3":
            shared.s3.kill()
            shared.s3.spawn(secret_key="another")
        case "clickhouse":
            shared.clickhouse.take_password("another")


def grant(shared: Servers, name: str) -> None:
    """Make the node's password or secret key valid again."""
    match name:
        case "nats":
            shared.nats.reconfigure("another", PASSWORD)
        case "s3":
            shared.s3.kill()
            shared.s3.start()
        case "clickhouse":
            shared.clickhouse.take_password(PASSWORD)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Callable[[], Path]]:
    """Mount a file system of this size at ``folder``; yield a function that fills it.

    The function returns the path of the file that it wrote.
    """
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk needs the right to mount a tmpfs (root)")

    def fill() -> Path:
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 16, 1):
                with suppress(OSError):
                    while file.write(bytes(size)):
                        pass
        return filler

    try:
        yield fill
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


class Load:
    """Clients of one node that each send one request at a time until stopped."""

    CLIENTS = 2

    def __init__(self, acknowledged: set[str]) -> None:
        self.acknowledged = acknowledged
        self.count = 0
        self.failed = 0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, url: str) -> None:
        """Start sending to the node at ``url``."""
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._send, args=(urlsplit(url).netloc,), daemon=True)
            for _ in range(self.CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop sending and wait for the last replies."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request hangs"

    def wait_for(self, more: int) -> None:
        """Wait until ``more`` further requests are acknowledged."""
        enough = self.count + more
        until(lambda: self.count >= enough, 30 + more / 10)

    def _send(self, host: str) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            ids = [uuid.uuid4().hex for _ in range(5)]
            try:
                status = _post(host, [{"id": each} for each in ids])
            except (OSError, http.client.HTTPException):
                self.failed += 1
                continue
            if status == 200:
                self.acknowledged.update(ids)
                self.count += 1
            else:
                self.failed += 1


def _post(host: str, records: list[dict[str, str]]) -> int:
    connection = http.client.HTTPConnection(host, timeout=30)
    try:
        connection.request("POST", "/", json.dumps(records))
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def node(project: Path, state: Path, shared: Servers, *arguments: object) -> Any:
    """Run a node with its own state folder."""
    return dev(project, state, *shared.arguments, *arguments, command="serve")


def kill_with_records(running: Dev, state: Path) -> set[str]:
    """Send SIGKILL while the log holds records that are in no object yet; return their ids."""
    found: set[str] = set()

    def holds_records() -> bool:
        freeze(running.process.pid)
        logs = (state / "pipelines" / "events").glob("*.wal")
        found.update(*(re.findall(r'"id":"(\w+)"', each.read_text("latin-1")) for each in logs))
        if not found:
            running.process.send_signal(signal.SIGCONT)
        return bool(found)

    until(holds_records)
    running.process.kill()
    running.process.wait(60)
    return found


def until(holds: Callable[[], bool], seconds: float = 30, pause: float = 0.02) -> None:
    """Wait until ``holds`` returns True; it polls, since other processes can set no event here."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(pause)

"""`edgesim serve` as an operator uses it: probes, logs, shutdown."""

import http.client
import json
import os
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from edgesim.cli import main
from tests.ports import reserved_port
from tests.processes import WORKERS, Dev, alive, descendants, dev, edgesim, freeze
from tests.servers_clickhouse import Server, prepared_server

EVENT = {"event": "kill", "player_id": "p1", "ts": 1_767_225_600_000}
ADMIN = "/cdn-cgi/edgesim"
SLOW = """
from workers import Response, WorkerEntrypoint, fetch


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        if request.method == "POST":
            await fetch(await request.text())
        return Response("served")
"""
WRANGLER = {
    "name": "main",
    "main": "main.py",
    "compatibility_date": "2026-10-01",
    "compatibility_flags": ["python_workers"],
}


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A Worker that responds to a POST once the URL in its body has responded; memory backends."""
    worker = tmp_path / "project" / "main"
    worker.mkdir(parents=True)
    (worker / "main.py").write_text(SLOW)
    (worker / "wrangler.jsonc").write_text(json.dumps(WRANGLER))
    account = 'workers = ["main"]\n[backends]\nr2 = "memory:"\nqueues = "memory:"\n'
    account += '[outbound]\nallow = ["127.0.0.1"]\n'  # the tests listen there
    (worker.parent / "edgesim.toml").write_text(account)
    return worker.parent


def lines(running: Dev, event: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in running.log]
    return [each for each in found if each["event"] == event]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_isolates_are_warm_unless_it_is_said(slow, tmp_path):
    """The default is `warm`; the project's own level overrides it, and a flag overrides both."""

    def level(*flags: object) -> object:
        with dev(slow, tmp_path / "state", *flags, command="serve") as running:
            assert running.stop() == 0
        [said] = lines(running, "isolation")
        return said["runs"]

    assert level() == "warm"
    account = slow / "edgesim.toml"
    account.write_text('isolation = "process"\n' + account.read_text())
    assert level() == "process"
    assert level("--isolation", "inline") == "inline"


def _on_a_server(folder: Path) -> tuple[Path, Server]:
    """Copy the Workers without a schema (the real server's SQL is old) and start that server."""
    project = folder / "workers"
    shutil.copytree(WORKERS, project, ignore=shutil.ignore_patterns(".edgesim"))
    account = project / "edgesim.toml"
    text = account.read_text()
    assert 'schema = "insert/schema.sql"' in text
    account.write_text(text.replace('schema = "insert/schema.sql"', ""))
    (folder / "server").mkdir()
    server = prepared_server(folder / "server")
    server.start()
    return project, server


def test_what_was_seen_is_delivered_before_the_end(tmp_path):
    """SIGTERM rolls the 90 s windows and delivers them: exit 0, and the rows are in the table."""
    with dev(WORKERS, tmp_path, command="serve") as running:
        for number in range(20):
            assert running.post(EVENT | {"player_id": f"p{number}"}) == 200
        assert running.stop() == 0
    assert lines(running, "drained")
    query = "SELECT uniqExact(player_id) FROM events"
    asked = edgesim("sql", query, "--project", WORKERS, "--state", tmp_path)
    assert (asked.returncode, asked.stdout) == (0, "20\n")


def test_what_cannot_be_delivered_in_time_is_for_the_next_start(tmp_path):
    """With ClickHouse down the drain ends after --drain-seconds: exit 0, the messages stay."""
    project, server = _on_a_server(tmp_path)
    away = ("--clickhouse", f"clickhouse+http://127.0.0.1:{server.http}")
    arguments = (*away, "--drain-seconds", "1")
    with dev(project, tmp_path / "state", *arguments, command="serve") as running:
        server.kill()
        assert running.post(EVENT) == 200
        assert running.stop() == 0
    assert lines(running, "not drained in time, the rest is for the next start")
    with dev(WORKERS, tmp_path / "state", command="serve") as running:
        until(lambda: running.stats()["queues"]["ingest"]["backlog"] == 0)
        assert [row["n"] for row in running.sql("SELECT count() AS n FROM events")] == [1]
        assert running.stop() == 0


def test_a_second_signal_ends_it_at_once(tmp_path):
    """A second SIGTERM ends a drain that cannot finish: exit 130."""
    project, server = _on_a_server(tmp_path)
    away = ("--clickhouse", f"clickhouse+http://127.0.0.1:{server.http}")
    arguments = (*away, "--drain-seconds", "100")
    try:
        with dev(project, tmp_path / "state", *arguments, command="serve") as running:
            freeze(server.process.pid)  # an insert gets no reply, and the drain waits for it
            assert running.post(EVENT) == 200
            running.process.send_signal(signal.SIGTERM)
            running.wait_log("pipeline wrote object")  # the drain has begun

            def ends() -> bool:
                # Signals in close succession count as one, so one more may be needed.
                running.process.send_signal(signal.SIGTERM)
                return running.process.poll() is not None

            until(ends)
            assert running.process.returncode == 130
    finally:
        server.kill()


def test_requests_under_way_are_finished(slow, tmp_path):
    """After SIGTERM running requests finish, and new connections are refused."""
    answers: list[tuple[int, bytes]] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as gate,
        dev(slow, tmp_path / "state", command="serve") as running,
    ):
        gate.settimeout(60)
        url = f"http://127.0.0.1:{gate.getsockname()[1]}/".encode()
        client = threading.Thread(target=lambda: answers.append(running.request(body=url)))
        client.start()
        waiting, _ = gate.accept()  # its Worker runs and cannot finish before the test replies
        running.process.send_signal(signal.SIGTERM)
        until(lambda: _refuses(running))
        assert not answers
        with waiting:
            waiting.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            client.join(60)
        assert answers == [(200, b"served")]
        assert running.process.wait(60) == 0


@pytest.mark.parametrize(
    ("command", "number", "to"),
    [
        ("serve", signal.SIGTERM, "group"),
        ("serve", signal.SIGTERM, "every process"),
        ("serve", signal.SIGHUP, "group"),
        ("dev", signal.SIGINT, "group"),
        ("dev", signal.SIGHUP, "every process"),
        ("dev", signal.SIGTERM, "twice"),
    ],
)
def test_a_signal_to_all_processes(slow, tmp_path, command, number, to):
    """A signal to the whole process group stops only the server, which shuts down in order.

    Service managers and terminals send such signals. The request in progress gets its response, and
    the exit code is 0.
    """
    answers: list[tuple[int, bytes]] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as gate,
        dev(slow, tmp_path / "state", command=command) as running,
    ):
        gate.settimeout(60)
        url = f"http://127.0.0.1:{gate.getsockname()[1]}/".encode()
        client = threading.Thread(target=lambda: answers.append(running.request(body=url)))
        client.start()
        waiting, _ = gate.accept()
        children = descendants(running.process.pid)
        assert children
        if to == "every process":
            for pid in children:
                os.kill(pid, number)
            running.process.send_signal(number)
        else:
            os.killpg(running.process.pid, number)
            if to == "twice":
                running.process.send_signal(number)
        until(lambda: _refuses(running))
        assert not answers
        with waiting:
            waiting.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            client.join(60)
        assert answers == [(200, b"served")]
        assert running.process.wait(20) == 0
        until(lambda: not [pid for pid in children if alive(pid)])


def test_a_signal_to_all_processes_loses_nothing(tmp_path):
    """SIGTERM to the server, its isolates and the engine: it drains, and the rows are stored."""
    with dev(WORKERS, tmp_path, command="serve") as running:
        assert running.post(EVENT) == 200
        running.sql("SELECT 1")  # start the engine
        for pid in [*descendants(running.process.pid), running.process.pid]:
            os.kill(pid, signal.SIGTERM)
        assert running.process.wait(60) == 0
    assert lines(running, "drained")
    asked = edgesim("sql", "SELECT count() FROM events", "--project", WORKERS, "--state", tmp_path)
    assert (asked.returncode, asked.stdout) == (0, "1\n")


def test_a_balancer_is_told_before_requests_are_refused(slow, tmp_path):
    """With --notice-seconds `ready` is 503 while a healthy node still serves; then it exits."""
    arguments = ("--notice-seconds", "1")
    with dev(slow, tmp_path / "state", *arguments, command="serve") as running:
        assert running.request(f"{ADMIN}/ready", method="GET") == (200, b'{"ready":true}')
        running.process.send_signal(signal.SIGTERM)
        until(lambda: running.request(f"{ADMIN}/ready", method="GET")[0] == 503)
        assert running.request("/", method="GET") == (200, b"served")
        assert running.request(f"{ADMIN}/health", method="GET")[0] == 200
        assert running.process.wait(60) == 0


def test_it_is_not_ready_while_it_starts(slow, tmp_path):
    """`health` is 200 from its first response; `ready` is 503 until the Workers are loaded."""
    worker = slow / "main" / "main.py"
    worker.write_text("sum(range(20_000_000))  # what takes its time to import\n" + SLOW)
    port = reserved_port()
    seen: list[tuple[int, int]] = []
    ready = threading.Event()

    def probe() -> None:
        while not ready.is_set():
            answers = [_status(port, f"{ADMIN}/{path}") for path in ("ready", "health")]
            if all(answers):
                seen.append((answers[0], answers[1]))

    prober = threading.Thread(target=probe)
    prober.start()
    try:
        with dev(slow, tmp_path / "state", "--port", port, command="serve") as running:
            assert _status(port, f"{ADMIN}/ready") == 200
            assert running.stop() == 0
    finally:
        ready.set()
        prober.join(60)
    assert seen[0] == (503, 200)


def test_probes_need_no_token(slow, tmp_path, monkeypatch):
    """On a public interface `ready` and `health` need no token; metrics do."""
    monkeypatch.setenv("EDGESIM_ADMIN_TOKEN", "secret")
    arguments = ("--host", "0.0.0.0")
    with dev(slow, tmp_path / "state", *arguments, command="serve") as running:
        running.url = running.url.replace("0.0.0.0", "127.0.0.1")
        for path in ("ready", "health"):
            host = {"Host": "10.0.0.7:8787"}
            assert running.request(f"{ADMIN}/{path}", method="GET", headers=host)[0] == 200
        assert running.request(f"{ADMIN}/metrics", method="GET")[0] == 403
        token = {"Authorization": "Bearer secret"}
        assert running.request(f"{ADMIN}/metrics", method="GET", headers=token)[0] == 200


@pytest.mark.linux
def test_metrics_have_what_an_operator_needs(slow, tmp_path):
    """Durations by Worker and outcome, and the resources of the process and its isolates."""
    with dev(slow, tmp_path / "state", command="serve") as running:
        for _ in range(3):
            assert running.request("/", method="GET")[0] == 200
        labels = 'worker="main",outcome="ok"'
        count = f"edgesim_invocation_seconds_count{{{labels}}}"
        # An invocation may end a moment after its response.
        until(lambda: _values(running).get(count) == 3)
        values = _values(running)
    assert values[f'edgesim_invocation_seconds_bucket{{{labels},le="+Inf"}}'] == 3
    assert 0 < values[f"edgesim_invocation_seconds_sum{{{labels}}}"] < 30
    assert values["process_resident_memory_bytes"] > 10_000_000
    assert values["edgesim_child_processes"] >= 1
    assert values["edgesim_child_resident_memory_bytes"] > 1_000_000


def _values(running: Dev) -> dict[str, float]:
    text = running.request(f"{ADMIN}/metrics", method="GET")[1].decode()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in _plain(text))}


def test_metrics_keep_prometheus_rules(tmp_path):
    """Each family once, with help; counters end in _total and never decrease."""

    def scraped(running: Dev) -> dict[str, Metric]:
        text = running.request(f"{ADMIN}/metrics", method="GET")[1].decode()
        found = list(text_string_to_metric_families(text))
        names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        assert len(names) == len(set(names)) == len(found)
        assert all(family.documentation for family in found)
        return dict(zip(names, found, strict=True))

    def operate(running: Dev, name: str, **arguments: str) -> Any:
        asked = json.dumps({"operation": name, "arguments": arguments}).encode()
        status, answer = running.request(f"{ADMIN}/operations", asked)
        assert status == 200, answer
        return json.loads(answer)

    def counts(families: dict[str, Metric]) -> dict[tuple[str, str], float]:
        return {
            (sample.name, json.dumps(sample.labels, sort_keys=True)): sample.value
            for family in families.values()
            if family.type in {"counter", "histogram"}
            for sample in family.samples
        }

    with dev(WORKERS, tmp_path, command="serve") as running:
        before: dict[tuple[str, str], float] = {}
        removed = 0
        for wrong in (False, True, False):
            for number in range(5):
                event = EVENT | {"player_id": f"p{number}"}
                assert running.post({} if wrong else event) == (400 if wrong else 200)
            running.drain()
            for each in operate(running, "r2.ls", bucket="events"):
                operate(running, "r2.rm", bucket="events", key=each["key"])
                removed += 1
            families = scraped(running)
            now = counts(families)
            assert not [name for name in before if now[name] < before[name]]
            before = now
        assert removed
        assert running.stop() == 0
    for name, family in families.items():
        assert name.endswith("_total") == (family.type == "counter"), name
        values = [sample.labels for sample in family.samples if not sample.name.endswith("_bucket")]
        keys = [(family.name, *sorted(each.items())) for each in values]
        assert family.type == "histogram" or len(keys) == len(set(keys)), name
    kinds = {name: family.type for name, family in families.items()}
    assert kinds["edgesim_pipelines_bytes_total"] == "counter"
    assert kinds["edgesim_tail_pending"] == "gauge"
    assert kinds["edgesim_r2_bytes"] == "gauge"


@pytest.mark.parametrize("seconds", ["-1", "soon", "inf"])
def test_wrong_seconds_are_refused(seconds):
    """An invalid drain duration is a usage error: exit 2."""
    with pytest.raises(SystemExit) as ended:
        main(["serve", f"--drain-seconds={seconds}"])
    assert ended.value.code == 2


def _plain(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def _refuses(running: Dev) -> bool:
    host, _, port = running.url.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def _status(port: int, path: str) -> int:
    """Return the status, or 0 if the port is closed."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return 0

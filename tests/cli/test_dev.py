"""`edgesim dev` as a developer uses it: the whole chain, bad input, reload, crash and restart."""

import contextlib
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import WORKERS, Dev, alive, descendants, dev, edgesim

EVENT = {"event": "kill", "player_id": "p1", "ts": 1_767_225_600_000, "props": {"damage": 7}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with dev(WORKERS, tmp_path_factory.mktemp("state"), "--no-reload") as running:
        yield running


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the workers that a test may edit."""
    copy = tmp_path / "workers"
    shutil.copytree(WORKERS, copy, ignore=shutil.ignore_patterns(".edgesim", "__pycache__"))
    return copy


def test_posted_events_are_rows(server):
    """Events posted over HTTP, one or many a request, are rows of the table, field by field."""
    for number in range(20):
        assert server.post(EVENT | {"player_id": f"single-{number}"}) == 200
    assert (
        server.post([EVENT | {"player_id": "array", "extra": number} for number in range(30)])
        == 200
    )
    server.drain()
    assert server.sql("SELECT count() AS n FROM events WHERE player_id LIKE 'single-%'") == [
        {"n": 20}
    ]
    rows = server.sql(
        "SELECT toUnixTimestamp64Milli(ts) AS ts, event, props FROM events "
        "WHERE player_id = 'array' ORDER BY JSONExtractInt(props, 'extra')"
    )
    assert len(rows) == 30
    assert int(rows[7]["ts"]) == EVENT["ts"]
    assert json.loads(rows[7]["props"]) == {"damage": 7, "extra": 7}


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"{broken", 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b"[]", 400, "invalid_event"),
        (b"42", 400, "invalid_event"),
        (json.dumps(EVENT | {"ts": "soon"}).encode(), 400, "invalid_event"),
        (json.dumps(EVENT | {"ts": True}).encode(), 400, "invalid_event"),
        (json.dumps([EVENT] * 501).encode(), 400, "too_many_events"),
        (b'"' + b"x" * 5_000_001 + b'"', 413, "payload_too_large"),
    ],
)
def test_bad_input_is_answered_and_kept(server, body, status, error):
    """Each kind of bad input has its own response, and is a row of ingest_errors."""
    counted = f"SELECT count() AS n FROM ingest_errors WHERE reason = '{error}'"
    before = server.sql(counted)[0]["n"]
    got, answer = server.request(body=body)
    assert (got, json.loads(answer)["error"]) == (status, error)
    server.drain()
    assert int(server.sql(counted)[0]["n"]) == int(before) + 1


def test_other_methods_and_health(server):
    """GET /health is 200, other methods are 405, other paths 404."""
    assert server.request("/health", method="GET") == (200, b"OK")
    assert server.request(method="PUT", body=b"{}")[0] == 405
    assert server.request("/health", body=b"{}")[0] == 405
    assert server.request("/nowhere", body=b"{}")[0] == 404


def test_an_event_too_large_for_the_log_takes_the_other_way(server):
    """Over the log budget the event goes through large-payload, and becomes a row too."""
    event = EVENT | {"player_id": "large", "props": {"blob": "x" * 400_000}}
    before = server.stats()["invocations"]["large-payload"].get("ok", 0)
    assert server.post(event) == 200
    stats = server.drain()
    assert stats["invocations"]["large-payload"]["ok"] == before + 1
    rows = server.sql("SELECT length(props) AS n FROM events WHERE player_id = 'large'")
    assert rows == [{"n": 400_011}]


def test_admin_is_closed_to_other_origins_and_hosts(server):
    """A page of another origin, or a foreign host name, is refused."""
    path = "/cdn-cgi/edgesim/stats"
    assert server.request(path, method="GET", headers={"Origin": "https://evil.example"})[0] == 403
    assert server.request(path, method="GET", headers={"Host": "evil.example"})[0] == 403
    assert server.request("/cdn-cgi/edgesim/health", method="GET")[0] == 200


def test_sql_error_is_the_databases_own(server):
    """A wrong statement returns ClickHouse's text, not a traceback."""
    status, body = server.request("/cdn-cgi/edgesim/sql", b"SELECT nothing FROM events")
    assert status == 404
    assert b"UNKNOWN_IDENTIFIER" in body


def test_a_worker_is_reached_by_its_name(server):
    """<name>.localhost goes to that Worker; the error for an unknown name lists the known ones."""
    port = server.url.rpartition(":")[2]
    host = {"Host": f"large-payload.localhost:{port}"}
    assert server.request(body=b"no json", headers=host)[0] == 400
    status, body = server.request(body=b"", headers={"Host": f"nope.localhost:{port}"})
    assert status == 404
    assert b"large-payload" in body


def test_sql_command_asks_the_running_server(tmp_path):
    """`edgesim sql` works beside a running server and, after it stops, on the state alone."""
    with dev(WORKERS, tmp_path, "--no-reload") as running:
        running.post(EVENT)
        running.drain()
        asked = edgesim(
            "sql", "SELECT count() FROM events", "--project", WORKERS, "--state", tmp_path
        )
        assert (asked.returncode, asked.stdout) == (0, "1\n")
        second = edgesim("dev", WORKERS, "--port", "0", "--state", tmp_path)
        assert second.returncode == 2
        assert running.url in second.stderr
        assert running.stop() == 0
    asked = edgesim("sql", "SELECT count() FROM events", "--project", WORKERS, "--state", tmp_path)
    assert (asked.returncode, asked.stdout) == (0, "1\n")
    wrong = edgesim("sql", "SELEKT", "--project", WORKERS, "--state", tmp_path)
    assert wrong.returncode == 3
    assert "Traceback" not in wrong.stderr


def test_nothing_accepted_by_the_pipeline_is_lost_by_kill_9(tmp_path):
    """SIGKILL with records in the window: the next start recovers them; they become rows once."""
    with dev(WORKERS, tmp_path, "--no-reload") as running:
        running.post([EVENT | {"player_id": f"k{number}"} for number in range(50)])
        deadline = time.monotonic() + 60
        while running.stats()["pipelines"]["events"]["records"] < 50:
            assert time.monotonic() < deadline
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(60)
    with dev(WORKERS, tmp_path, "--no-reload") as running:
        assert running.stats()["pipelines"]["events"]["pending"] == 50
        running.drain()
        assert running.sql("SELECT count() AS n, uniqExact(player_id) AS u FROM events") == [
            {"n": 50, "u": 50}
        ]


def test_a_handler_that_raises_is_an_error_page_and_a_trace(project, tmp_path):
    """500 with the traceback, the exception in the errors table; the next request works."""
    receiver = project / "receiver" / "receiver.py"
    receiver.write_text(
        receiver.read_text().replace(
            "        origins = self.env",
            '        if request.headers.get("x-boom"):\n            raise KeyError("boom")\n'
            "        origins = self.env",
            1,
        )
    )
    with dev(project, tmp_path / "state", "--no-reload") as running:
        status, body = running.request(body=b"{}", headers={"x-boom": "1"})
        assert status == 500
        assert body.startswith(b"Traceback (most recent call last):\n")
        assert body.endswith(b"KeyError: 'boom'")
        assert running.post(EVENT) == 200
        running.drain()
        rows = running.sql("SELECT worker, reason, detail FROM ingest_errors")
        assert (rows[0]["worker"], rows[0]["reason"]) == ("receiver", "exception")
        assert "KeyError: 'boom'" in rows[0]["detail"]
        assert running.stats()["invocations"]["receiver"] == {"exception": 1, "ok": 1}


def test_a_saved_schema_is_applied(project, tmp_path):
    """A new table exists at once; a broken statement is reported at once, and inserts continue."""
    schema = project / "insert" / "schema.sql"
    text = schema.read_text()
    with dev(project, tmp_path / "state") as running:
        assert running.sql("SELECT count() AS n FROM events") == [{"n": 0}]
        schema.write_text(text + "CREATE TABLE extra (a UInt8) ENGINE = MergeTree ORDER BY a;\n")
        running.wait_log('"schema applied"')
        assert running.sql("SELECT count() AS n FROM extra") == [{"n": 0}]
        schema.write_text(text + "CREATE TABEL other (a UInt8) ENGINE = MergeTree ORDER BY a;\n")
        running.wait_log('"schema not applied"')
        running.wait_log("CREATE TABEL other")
        assert running.post(EVENT) == 200
        running.drain()
        assert running.sql("SELECT count() AS n FROM events") == [{"n": 1}]


def test_reload_on_save_loses_nothing(project, tmp_path):
    """An edited module serves the next request; a broken one keeps the old one; records stay."""
    receiver = project / "receiver" / "receiver.py"
    source = receiver.read_text()
    with dev(project, tmp_path / "state") as running:
        assert running.post(EVENT) == 200
        receiver.write_text(source.replace('Response("OK", headers', 'Response("edited", headers'))
        running.wait_log('"reloaded"')
        assert running.request("/health", method="GET")[1] == b"edited"
        receiver.write_text("def broken(:\n")
        running.wait_log("not reloaded, the old version goes on")
        assert running.request("/health", method="GET")[1] == b"edited"
        insert = project / "insert" / "insert.py"
        handler = insert.read_text()
        insert.write_text(handler.replace("async def queue", "async def quue"))
        running.wait_log("no `queue` handler")
        insert.write_text(handler)
        config = project / "edgesim.toml"
        config.write_text(config.read_text().replace("max_seconds = 90", "max_seconds = 60"))
        running.wait_log("configuration changed")
        receiver.write_text(source)
        assert running.post(EVENT) == 200
        running.drain()
        assert running.sql("SELECT count() AS n FROM events") == [{"n": 2}]


def test_a_taken_port_is_one_line():
    """The error for a port in use names the cure, exit 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        failed = edgesim("dev", WORKERS, "--port", port)
    assert failed.returncode == 2
    assert f"127.0.0.1:{port}" in failed.stderr
    assert "--port" in failed.stderr


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("tail/wrangler.jsonc", '"main"', '"mian"', "tail/wrangler.jsonc: main: is missing"),
        ("tail/wrangler.jsonc", '"stream": "events"', '"stream": "evnts"', "did you mean 'events'"),
        ("tail/wrangler.jsonc", "[", "", "tail/wrangler.jsonc: not valid JSONC"),
        ("edgesim.toml", "max_seconds = 90", "max_seconds = 0", "pipelines.events.max_seconds"),
        ("edgesim.toml", "max_seconds", "max_secs", "pipelines.events.max_secs: unknown key"),
        ("tail/tail.py", "from rpc import", "from rcp import", "ModuleNotFoundError: No module"),
        ("insert/insert.py", "async def queue", "async def quue", "no `queue` handler"),
        ("edgesim.toml", '"file:.edgesim/r2"', '"ftp://x"', "known schemes: memory, file, s3"),
    ],
)
def test_broken_configuration_is_one_line(project, file, old, new, expected):
    """The error for a broken file is one line with file, key and cure; exit 2, no traceback."""
    path = project / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    failed = edgesim("dev", project, "--port", "0")
    assert failed.returncode == 2, failed.stderr
    assert expected in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1


def test_what_cannot_be_inserted_waits_in_the_dead_letter_queue(project, tmp_path):
    """After the last retry insert_failures has a row, and the message can be redriven."""
    tables = project / "insert" / "tables.py"
    tables.write_text(
        tables.read_text().replace('Table(\n        "events"', 'Table(\n        "nowhere"')
    )
    wrangler = project / "insert" / "wrangler.jsonc"
    wrangler.write_text(wrangler.read_text().replace('"max_retries": 12', '"max_retries": 0'))
    with dev(project, tmp_path / "state", "--no-reload") as running:
        assert running.post(EVENT) == 200
        stats = running.drain()
        assert stats["queues"]["ingest"]["dead"] == 1
        assert stats["queues"]["ingest-dlq"]["backlog"] == 1
        [row] = running.sql("SELECT queue, bucket, object FROM insert_failures")
        assert (row["queue"], row["bucket"]) == ("ingest-dlq", "events")
        assert row["object"].endswith(".json.gz")


def test_logs_are_one_line_an_invocation(project, tmp_path):
    """Each invocation is one JSON line with worker, outcome, CPU and wall ms."""
    with dev(project, tmp_path / "state", "--no-reload") as running:
        running.post(EVENT)
        running.drain()
        assert running.stop() == 0
    lines = [json.loads(line) for line in running.log]
    cpu_ms = 0.0
    for event, worker in (("fetch", "receiver"), ("tail", "tail"), ("queue", "insert")):
        [line] = [each for each in lines if each["event"] == event]
        assert (line["worker"], line["outcome"]) == (worker, "ok")
        assert line["wall_ms"] > 0
        cpu_ms += line["cpu_ms"]
    # The sum of all: Linux subtracts stolen time, which may leave nothing of a short invocation.
    assert cpu_ms > 0


def test_a_zygote_that_is_killed_is_replaced(tmp_path):
    """SIGKILL of every Worker's zygote: they are restarted, and requests are served again."""
    with dev(WORKERS, tmp_path, "--no-reload") as running:
        assert running.post(EVENT) == 200
        children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
        for pid in children.read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        running.wait_log("worker restarted")
        deadline = time.monotonic() + 60
        while running.post(EVENT) != 200:
            assert time.monotonic() < deadline
        assert running.stop() == 0


@pytest.mark.parametrize("isolation", ["process", "warm"])
def test_no_process_outlives_a_killed_server(tmp_path, isolation):
    """After SIGKILL of the server its zygotes, their forks and the database engine exit."""
    with dev(WORKERS, tmp_path, "--no-reload", "--isolation", isolation) as running:
        running.post(EVENT)
        running.drain()
        group = descendants(running.process.pid)
        assert len(group) > 5
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(60)
        deadline = time.monotonic() + 60
        while any(alive(pid) for pid in group):
            assert time.monotonic() < deadline, group


def test_a_handler_that_never_ends_does_not_keep_the_server(project, tmp_path):
    """SIGTERM ends the server although an invocation loops for ever."""
    receiver = project / "receiver" / "receiver.py"
    receiver.write_text(
        receiver.read_text().replace(
            "        origins = self.env",
            '        if request.headers.get("x-spin"):\n'
            "            while True:\n                pass\n"
            "        origins = self.env",
            1,
        )
    )
    with dev(project, tmp_path / "state", "--no-reload") as running:
        spinning = threading.Thread(target=_spin, args=(running,), daemon=True)
        spinning.start()
        deadline = time.monotonic() + 60
        while running.post(EVENT) != 200:
            assert time.monotonic() < deadline
        assert running.stop() == 0


def _spin(running: Dev) -> None:
    with contextlib.suppress(OSError):
        running.request(body=b"{}", headers={"x-spin": "1"})


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_that_is_none(port):
    """An invalid port number is reported in one line, exit 2."""
    failed = edgesim("dev", WORKERS, "--port", port)
    assert failed.returncode == 2
    assert len(failed.stderr.strip().splitlines()) == 1


def test_a_client_that_goes_away_ends_its_invocation(project, tmp_path):
    """The client disconnects: the invocation is canceled, and the next one is served."""
    receiver = project / "receiver" / "receiver.py"
    receiver.write_text(
        "import asyncio\nfrom workers import Response, WorkerEntrypoint\n\n\n"
        "class Default(WorkerEntrypoint):\n"
        "    async def fetch(self, request):\n"
        '        if request.headers.get("x-wait"):\n'
        "            await asyncio.sleep(3600)\n"
        '        return Response("OK")\n'
    )
    with dev(project, tmp_path / "state", "--no-reload") as running:
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx-wait: 1\r\n\r\n")
        deadline = time.monotonic() + 60
        while running.stats()["invocations"]["receiver"].get("canceled") != 1:
            assert time.monotonic() < deadline, running.stats()["invocations"]
            time.sleep(0.02)
        assert running.request(method="GET") == (200, b"OK")

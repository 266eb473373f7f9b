"""A real ClickHouse server that is killed, frozen, restarted, or requires a password or TLS."""

import json
import signal
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import anyio
import pytest

from edgesim import drivers
from edgesim.clickhouse.gateway import Gateway
from edgesim.model import HttpRequest, read_all
from tests.processes import dev, edgesim, freeze
from tests.servers_clickhouse import Server, running_server

SCHEMES = ["clickhouse", "clickhouse+http"]
LINE = {"clickhouse": "tcp", "clickhouse+http": "http"}
INSERTER = """
from urllib.parse import quote
from workers import Response, WorkerEntrypoint

SQL = quote("INSERT INTO default.t FORMAT JSONEachRow")


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        await self.env.QUEUE.send(await request.json())
        return Response("OK")

    async def queue(self, batch, env=None, ctx=None):
        for message in batch.messages:
            answer = await self.env.CLICKHOUSE.fetch(
                f"http://clickhouse/?query={SQL}", method="POST", body=str(message.body["row"])
            )
            if answer.ok:
                message.ack()
            else:
                print("PROBLEM", answer.status, (await answer.text()).strip())
                message.retry(delaySeconds=1)
"""
WRANGLER = {
    "name": "inserter",
    "main": "main.py",
    "queues": {
        "producers": [{"binding": "QUEUE", "queue": "rows"}],
        "consumers": [{"queue": "rows", "max_batch_timeout": 0, "max_retries": 100}],
    },
    "services": [{"binding": "CLICKHOUSE", "service": "clickhouse"}],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path) -> Path:
    worker = tmp_path / "project" / "inserter"
    worker.mkdir(parents=True)
    (worker / "main.py").write_text(INSERTER)
    (worker / "wrangler.jsonc").write_text(json.dumps(WRANGLER))
    (worker.parent / "edgesim.toml").write_text('workers = ["inserter"]\n')
    return worker.parent


@asynccontextmanager
async def gateway(scheme: str, place: str, password: str | None = None):
    url = f"{scheme}://{place}"
    async with drivers.opener("clickhouse", url)(url, None, password) as driver:
        yield Gateway(driver)


async def ask(asked: Gateway, sql: str, body: bytes = b"") -> tuple[int, str]:
    """Run a statement and return its status and text."""
    request = HttpRequest("POST", f"http://clickhouse/?query={quote(sql)}", [], body)
    answer = await asked.fetch(request)
    return answer.status, (await read_all(answer.body)).decode()


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_restart_goes_unnoticed(server, scheme):
    """While the server is down a statement fails with one clear line; afterwards it succeeds."""
    async with gateway(scheme, f"127.0.0.1:{getattr(server, LINE[scheme])}") as asked:
        assert await ask(asked, "SELECT 1") == (200, "1\n")
        server.kill()
        try:
            status, text = await ask(asked, "SELECT 1")
            assert (status, text.count("\n")) == (503, 1)
            assert "out of reach" in text
        finally:
            await anyio.to_thread.run_sync(server.start)
        assert await ask(asked, "SELECT 1") == (200, "1\n")
        server.kill()
        await anyio.to_thread.run_sync(server.start)
        assert await ask(asked, "SELECT 2") == (200, "2\n")


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("warm", [True, False])
async def test_a_frozen_server_is_given_up(server, scheme, warm):
    """No reply within the timeout is an error, on open connections and on new ones."""
    place = f"127.0.0.1:{getattr(server, LINE[scheme])}/?timeout=1"
    async with gateway(scheme, place) as asked:
        if warm:
            assert (await ask(asked, "SELECT 1"))[0] == 200
        freeze(server.process.pid)
        try:
            with anyio.fail_after(60):
                status, text = await ask(asked, "SELECT 1")
                assert (status, text.count("\n")) == (503, 1)
                sql = "INSERT INTO default.missing FORMAT JSONEachRow"
                assert (await ask(asked, sql, b'{"n": 1}'))[0] == 503
        finally:
            server.process.send_signal(signal.SIGCONT)
        with anyio.fail_after(60):  # a server that was just continued may take seconds
            while await ask(asked, "SELECT 1") != (200, "1\n"):
                pass


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_statement_is_cancelled(server, scheme):
    """A cancelled call returns at once, and the next statement runs."""
    async with gateway(scheme, f"127.0.0.1:{getattr(server, LINE[scheme])}") as asked:
        with anyio.fail_after(60):
            with anyio.move_on_after(0.3):
                await ask(asked, "SELECT sleep(3)")
            assert await ask(asked, "SELECT 1") == (200, "1\n")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_message_is_lost(server, project, tmp_path, scheme):
    """The server is killed during inserts and restarted: each row is there, nothing is stuck."""
    for sql in (
        "DROP TABLE IF EXISTS default.t",
        "CREATE TABLE default.t (n UInt32) ENGINE = MergeTree ORDER BY n",
    ):
        assert edgesim_sql(server, sql) == ""
    url = f"{scheme}://127.0.0.1:{getattr(server, LINE[scheme])}"
    with dev(project, tmp_path / "state", "--no-reload", "--clickhouse", url) as running:
        for n in range(10):
            assert running.post({"row": json.dumps({"n": n})}) == 200
        server.kill()
        try:
            for n in range(10, 20):
                assert running.post({"row": json.dumps({"n": n})}) == 200
            running.wait_log("out of reach")
        finally:
            server.start()
        running.drain()
        assert running.stop() == 0
    # At least once: an insert whose acknowledgement was lost is repeated, and this server cannot
    # deduplicate it.
    assert edgesim_sql(server, "SELECT uniqExact(n), max(n) FROM default.t") == "20\t19\n"


def edgesim_sql(server: Server, sql: str) -> str:
    """Run a statement on the server itself, without edgesim, and return the reply's text."""
    import urllib.request

    url = f"http://127.0.0.1:{server.http}/"
    with urllib.request.urlopen(url, sql.encode(), timeout=30) as answer:
        text: str = answer.read().decode()
        return text


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_wrong_password(project, tmp_path, monkeypatch, scheme):
    """The doctor and a start report a wrong password with the cure; the right one is ok."""
    folder = tmp_path / "server"
    folder.mkdir()
    with running_server(folder, password="right") as server:
        url = f"{scheme}://127.0.0.1:{getattr(server, LINE[scheme])}"
        given = (project, "--state", tmp_path / "state", "--clickhouse", url)
        monkeypatch.setenv("EDGESIM_CLICKHOUSE_PASSWORD", "wrong-one")
        done = edgesim("doctor", *given)
        assert done.returncode == 1
        (line,) = (each for each in done.stdout.splitlines() if each.startswith("problem"))
        assert "Code 193" in line
        assert "EDGESIM_CLICKHOUSE_PASSWORD" in line
        refused = edgesim("dev", *given, "--port", 0)
        assert refused.returncode == 2
        place = f"edgesim: {project}/edgesim.toml: backends.clickhouse: "
        assert refused.stderr.splitlines()[-1].startswith(place)
        assert "wrong-one" not in done.stdout + done.stderr + refused.stderr
        monkeypatch.setenv("EDGESIM_CLICKHOUSE_PASSWORD", "right")
        done = edgesim("doctor", *given, "--json")
        assert done.returncode == 0, done.stdout
        report = json.loads(done.stdout)
        told = [each for each in report["checks"] if each["check"] == "clickhouse"]
        assert told[0] == {"check": "clickhouse", "status": "ok", "said": "version 18.16.1"}
        assert any("insert_deduplication_token" in each["said"] for each in told)


@pytest.mark.anyio
async def test_tls(tmp_path):
    """Both protocols over TLS: the certificate is checked unless the URL says not to."""
    with running_server(tmp_path, tls=True) as server:
        for scheme, port in (("clickhouses", server.tcps), ("clickhouse+https", server.https)):
            for options, status in (
                (f"ca={tmp_path}/cert.pem", 200),
                ("verify=false", 200),
                ("", 503),
            ):
                async with gateway(scheme, f"localhost:{port}/?{options}") as asked:
                    assert (await ask(asked, "SELECT 1"))[0] == status, (scheme, options)

"""The ClickHouse port of `edgesim dev`, used with ordinary clients."""

import gzip
import http.client
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import clickhouse_connect
import pytest

from tests.processes import Dev, dev, edgesim

EXAMPLE = """
from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("OK")
"""


def project_in(folder: Path, clickhouse: str) -> Path:
    """Write a project of one Worker."""
    worker = folder / "only"
    worker.mkdir(parents=True)
    (worker / "main.py").write_text(EXAMPLE)
    (worker / "wrangler.jsonc").write_text('{"name": "only", "main": "main.py"}')
    text = f'workers = ["only"]\n[clickhouse]\n{clickhouse}\n'
    (folder / "edgesim.toml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dev, str]]:
    folder = tmp_path_factory.mktemp("port")
    project = project_in(folder / "project", "port = 0")
    with dev(project, folder / "state", "--no-reload") as server:
        assert server.process.stdout is not None
        line = server.process.stdout.readline()
        assert line.startswith("ClickHouse on http://127.0.0.1:")
        yield server, line.removeprefix("ClickHouse on ").strip()
        assert server.stop() == 0


def ask(url: str, path: str, method: str = "GET", body: bytes = b"", **headers: str):
    """Send a request and return status, headers and body."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body or None, given)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_clickhouse_connect(running):
    """The usual Python client connects, creates a table, inserts and reads, compressed or plain."""
    port = urlsplit(running[1]).port
    for compress in (False, "gzip"):
        client = clickhouse_connect.get_client(host="127.0.0.1", port=port, compress=compress)
        client.command(
            "CREATE OR REPLACE TABLE c (n UInt32, s String) ENGINE = MergeTree ORDER BY n"
        )
        client.insert("c", [[n, f"row {n}"] for n in range(1_000)], column_names=["n", "s"])
        found = client.query("SELECT sum(n), max(s) FROM c WHERE n >= {low:UInt32}", {"low": 500})
        assert found.result_rows == [(374_750, "row 999")]
        with pytest.raises(clickhouse_connect.driver.exceptions.DatabaseError, match="Code: 60"):
            client.query("SELECT * FROM missing")
        client.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl(running):
    """The body is the statement; the response is its result."""
    done = subprocess.run(
        ["curl", "-s", running[1], "--data-binary", "SELECT 1 + 1"], capture_output=True, check=True
    )
    assert done.stdout == b"2\n"


def test_ping_and_reading_by_get(running):
    """GET pings and reads; it changes nothing."""
    assert ask(running[1], "/ping")[::2] == (200, b"Ok.\n")
    sql = quote("SELECT currentDatabase() AS d FORMAT JSONEachRow")
    status, headers, body = ask(running[1], f"/?query={sql}&database=system&query_id=q1")
    assert (status, body) == (200, b'{"d":"system"}\n')
    assert headers["x-clickhouse-format"] == "JSONEachRow"
    assert headers["x-clickhouse-query-id"] == "q1"
    status, headers, body = ask(running[1], f"/?query={quote('CREATE TABLE x (n UInt8)')}")
    assert (status, headers["x-clickhouse-exception-code"]) == (500, "164")


def test_answers_are_packed_for_those_who_ask(running):
    """Responses are gzip only if both enable_http_compression and Accept-Encoding ask for it."""
    path = "/?query=SELECT+1&enable_http_compression="
    _, headers, body = ask(running[1], path + "1", Accept_Encoding="deflate, gzip;q=1")
    assert (headers["content-encoding"], gzip.decompress(body)) == ("gzip", b"1\n")
    assert ask(running[1], path + "0", Accept_Encoding="gzip")[2] == b"1\n"
    assert ask(running[1], path + "1")[2] == b"1\n"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:8123"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Referer": "http://evil.example/"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_web_page_is_refused(running, method, headers):
    """A foreign host name, a foreign origin or a cross-site request is refused."""
    status, _, body = ask(running[1], "/?query=SELECT+42", method, **headers)
    assert status == 403
    assert b"42" not in body


def test_a_port_that_is_taken(running, tmp_path):
    """The start fails with one line that names file and key."""
    port = urlsplit(running[1]).port
    project = project_in(tmp_path / "project", f"port = {port}")
    done = edgesim("dev", project, "--port", 0, "--state", tmp_path / "state")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        f"edgesim: {project}/edgesim.toml: clickhouse.port"
    )

"""HTTP ingest of a running server: ordinary clients, browsers, Workers, and what is refused."""

import gzip
import http.client
import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from edgesim.model import HttpRequest, read_all
from tests.processes import Dev, dev, edgesim
from tests.simulated import simulated, write_worker

ID = "fedcba98765432100123456789abcdef"
TOKEN = "ingest-s3cret"
STREAMS = f"""
[streams.open]
id = "{ID}"
http = {{ cors = ["https://shop.example"] }}
[streams.public]
http = {{ cors = ["*"] }}
[streams.locked]
http = {{ auth = true }}
[streams.off]
http = {{ enabled = false }}
[streams.small]
buffer_bytes_max = 100
[streams.fitted]
schema = "fitted.json"
[sinks.lake]
bucket = "lake"
format = "json"
[pipelines.all]
sql = '''
INSERT INTO lake SELECT * FROM open; INSERT INTO lake SELECT * FROM public;
INSERT INTO lake SELECT * FROM locked; INSERT INTO lake SELECT * FROM off;
INSERT INTO lake SELECT * FROM small; INSERT INTO lake SELECT * FROM fitted'''
"""
FITTED = '{"fields": [{"name": "n", "type": "int32"}, {"name": "extra", "type": "json"}]}'
ECHO = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(request.url)
"""
SENDER = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        sent = await fetch(await request.text(), method="POST", body='[{"n": 1}, {"n": 2}]')
        return Response(await sent.text(), status=sent.status)
"""


def project_in(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "edgesim.toml").write_text('workers = ["main"]\n' + STREAMS)
    (folder / "fitted.json").write_text(FITTED)
    write_worker(folder, "main", ECHO)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("ingest")
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EDGESIM_INGEST_TOKEN", TOKEN)
            patch.setenv("EDGESIM_ADMIN_TOKEN", "admin-s3cret")  # it must not be needed
            started = dev(project_in(folder / "project"), folder / "state", "--no-reload")
            running = stack.enter_context(started)
        yield running


class Reply:
    """A response, with its headers and its JSON."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = {name.lower(): value for name, value in answer.getheaders()}
        self.body = answer.read()

    @property
    def committed(self) -> int:
        assert self.status == 200, self.body
        found = json.loads(self.body)
        assert found["success"] is True
        committed: int = found["result"]["committed"]
        return committed

    @property
    def error(self) -> tuple[int, int, str]:
        """Status, code and message of a refusal."""
        found = json.loads(self.body)
        assert found["success"] is False
        [error] = found["errors"]
        return self.status, error["code"], error["message"]


def ask(
    server: Dev,
    stream: str,
    body: bytes = b"[]",
    method: str = "POST",
    *,
    by_host: bool = False,
    **headers: str,
) -> Reply:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    path = f"/cdn-cgi/edgesim/ingest/{stream}"
    if by_host:
        path, given["host"] = "/", f"{stream}.ingest.localhost:{address.port}"
    try:
        connection.request(method, path, body, given)
        return Reply(connection.getresponse())
    finally:
        connection.close()


@pytest.mark.parametrize("by_host", [False, True])
@pytest.mark.parametrize("name", ["open", ID])
def test_records_are_committed(server, name, by_host):
    """By path or host, name or id: the reply says how many records are safe."""
    assert ask(server, name, b'[{"n": 1}, {"n": 2}]', by_host=by_host).committed == 2
    assert ask(server, name, b"[]", by_host=by_host).committed == 0


def test_gzip_bodies(server):
    """A compressed body is unpacked."""
    body = gzip.compress(json.dumps([{"n": number} for number in range(1000)]).encode())
    assert ask(server, "open", body, content_encoding="gzip").committed == 1000


def test_a_browser_page_may_send(server):
    """The preflight and the reply name an origin of the list, or any; other origins nothing."""
    wanted: dict[str, Any] = {
        "origin": "https://shop.example",
        "access_control_request_method": "POST",
        "access_control_request_headers": "content-type",
    }
    allowed = ask(server, "open", b"", "OPTIONS", by_host=True, **wanted)
    assert allowed.status == 204
    assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
    assert "POST" in allowed.headers["access-control-allow-methods"]
    assert allowed.headers["access-control-allow-headers"] == "content-type"
    page: dict[str, Any] = {"origin": "https://shop.example", "sec_fetch_site": "cross-site"}
    sent = ask(server, "open", b'[{"n": 1}]', by_host=True, **page)
    assert sent.committed == 1
    assert sent.headers["access-control-allow-origin"] == "https://shop.example"
    wanted["origin"] = "https://x.example"
    anywhere = ask(server, "public", b"", "OPTIONS", **wanted)
    assert anywhere.headers["access-control-allow-origin"] == "*"
    other = ask(server, "open", b"", "OPTIONS", **wanted)
    assert "access-control-allow-origin" not in other.headers


def test_a_stream_with_authentication_wants_its_token(server):
    """Without the token, or with another one, nothing is stored."""
    assert ask(server, "locked", b'[{"n": 1}]').error[:2] == (401, 401)
    for wrong in ("Bearer x", f"Basic {TOKEN}", TOKEN, "Bearer"):
        refused = ask(server, "locked", b'[{"n": 1}]', authorization=wrong)
        assert refused.error[:2] == (401, 401)
    right = ask(server, "locked", b'[{"n": 1}]', authorization=f"Bearer {TOKEN}")
    assert right.committed == 1
    preflight = ask(server, "locked", b"", "OPTIONS", origin="https://shop.example")
    assert preflight.status == 204


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "valid JSON"),
        (b"{", "valid JSON"),
        (b'{"n": 1}', "array"),
        (b"[1]", "record 0"),
        (b'[{"n": 1}, []]', "record 1"),
        (b'[{"n": NaN}]', "valid JSON"),
        (b'[{"n": "\xff"}]', "valid JSON"),
        (b'[{"n": 1}] x', "valid JSON"),
        (b"[" * 100_000, "valid JSON"),
    ],
)
def test_a_body_that_is_no_array_of_objects(server, body, reason):
    """The platform's code 1003, with the reason."""
    status, code, message = ask(server, "open", body).error
    assert (status, code) == (400, 1003)
    assert reason in message


def test_damaged_gzip(server):
    """Other bytes, a cut stream and bytes after its end are refused."""
    whole = gzip.compress(b'[{"n": 1}]')
    for body in (b"x", whole[:-3], whole + b"x"):
        assert ask(server, "open", body, content_encoding="gzip").error[:2] == (400, 1003)
    assert ask(server, "open", whole, content_encoding="br").error[0] == 415


def test_five_megabytes_are_the_limit(server):
    """The limit counts the body, also when it is unpacked; one byte more is refused."""
    body = b'[{"t":"' + b"x" * (5_000_000 - 10) + b'"}]'
    assert len(body) == 5_000_000
    assert ask(server, "public", body).committed == 1
    larger = body[:-3] + b'x"}]'
    assert ask(server, "public", larger).error[0] == 413
    assert ask(server, "public", gzip.compress(larger), content_encoding="gzip").error[0] == 413


def test_the_limit_counts_the_bytes_that_were_sent(server):
    """A body that is larger as rows is taken, also if one of its records does not fit."""
    numbers = b",".join([b"1e9"] * 1_000_000)  # each is 1000000000.0 in a row
    for more in (b"", b', {"n": "x"}'):
        body = b'[{"n": 1, "extra": [' + numbers + b"]}" + more + b"]"
        assert ask(server, "fitted", body).committed == 1 + bool(more)


@pytest.mark.parametrize(
    ("name", "method", "status", "reason"),
    [
        ("opn", "POST", 404, "known: open, public, locked, small, fitted"),
        ("off", "POST", 404, "[streams.off] http"),
        ("open", "GET", 405, "POST an array"),
        ("open", "PUT", 405, "POST an array"),
    ],
)
def test_other_names_and_methods(server, name, method, status, reason):
    """An unknown stream, one without HTTP, another method: one clear message each."""
    found, _, message = ask(server, name, b"", method).error
    assert found == status
    assert reason in message


def test_a_full_buffer_answers_429(server):
    """Over the stream's bound a sender is told to wait, and nothing is lost."""
    assert ask(server, "small", b'[{"t": "' + b"x" * 100 + b'"}]').committed == 1
    refused = ask(server, "small", b'[{"n": 1}]')
    assert refused.error[0] == 429
    assert int(refused.headers["retry-after"]) > 0


def test_the_admin_stays_closed(server):
    """Only the path of ingest is public."""
    for path in ("stats", "streams/open/dropped", "ingest/../stats"):
        assert server.request(f"/cdn-cgi/edgesim/{path}", method="GET")[0] in {403, 404}


def test_an_answered_request_survives_a_kill(tmp_path):
    """A record whose request was answered is stored by the next run."""
    project = project_in(tmp_path / "project")
    with dev(project, tmp_path / "state", "--no-reload") as running:
        assert ask(running, "open", b'[{"n": 7}]').committed == 1
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait(60)
    with dev(project, tmp_path / "state", "--no-reload") as running:
        assert running.drain()["sinks"]["lake"]["records"] == 1


def test_recorded_requests_can_be_replayed(tmp_path):
    """A recording has requests to streams; its replay sends them again, in virtual time."""
    project, record = project_in(tmp_path / "project"), tmp_path / "traffic.ndjson"
    with dev(project, tmp_path / "state", "--record", record, "--no-reload") as running:
        assert ask(running, "open", b'[{"n": 1}]', by_host=True).committed == 1
        assert ask(running, ID, b'[{"n": 2}]').committed == 1
        assert running.stop() == 0
    done = edgesim("replay", record, "--project", project, "--report", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["stats"]["streams"]["open"]["records"] == 2


@pytest.mark.anyio
async def test_a_worker_may_send(tmp_path):
    """`fetch` reaches a stream's endpoint by its local host, and the platform's host by its id."""
    write_worker(tmp_path, "main", SENDER)
    (tmp_path / "fitted.json").write_text(FITTED)
    async with simulated(tmp_path, "main", account=STREAMS) as simulator:
        for host in ("open.ingest.localhost:8787", f"{ID}.ingest.cloudflare.com"):
            url = f"http://{host}/".encode()
            answer = await simulator.fetch(HttpRequest("POST", "http://main.localhost/", [], url))
            sent = json.loads(await read_all(answer.body))
            assert sent == {"success": True, "result": {"committed": 2}}
        assert simulator.primitives.streams["open"].records == 4

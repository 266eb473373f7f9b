"""The front and the admin API over real HTTP: tokens, hosts, files, hostile requests."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.processes import Dev, dev, edgesim
from tests.simulated import write_worker

ENTRY = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        names = ["cf-connecting-ip", "x-forwarded-for", "x-real-ip"]
        return Response(json.dumps([self.env.ME, request.url, *map(request.headers.get, names)]))
    async def scheduled(self, controller, env=None, ctx=None):
        print("scheduled ran")
"""
ADMIN = "/cdn-cgi/edgesim"
SCHEDULED = "/cdn-cgi/handler/scheduled"
QUEUES = "/client/v4/accounts/a/queues"
FORGED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}


def project_in(folder: Path, extra: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "edgesim.toml").write_text(
        'workers = ["main", "inner", "routed"]\nentry = "main"\n'
        '[queues.jobs.pull]\n[backends]\nr2 = "memory:"\nqueues = "sqlite:.edgesim/queues.db"\n'
        + extra
    )
    buckets = [{"binding": "B", "bucket_name": "files"}]
    write_worker(folder, "main", ENTRY, vars={"ME": "main"}, r2_buckets=buckets)
    write_worker(folder, "inner", ENTRY, vars={"ME": "inner"})
    routes = ["api.example.com/*"]
    write_worker(folder, "routed", ENTRY, vars={"ME": "routed"}, routes=routes)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("edge")
    with dev(project_in(folder / "project"), folder / "state", "--no-reload") as running:
        yield running


def answered(running: Dev, host: str, **headers: str) -> object:
    """Return the name of the Worker that responded for the host, or else the status."""
    named = {"Host": host} | {name.replace("_", "-"): value for name, value in headers.items()}
    status, body = running.request("/", method="GET", headers=named)
    return json.loads(body)[0] if status == 200 else status


def test_names_of_workers_are_for_clients_of_this_machine(server):
    """Through a proxy only routed Workers and the entry Worker respond."""
    assert answered(server, "inner.localhost") == "inner"
    assert answered(server, "inner.me.workers.dev") == "inner"
    assert answered(server, "inner.localhost", Via="1.1 proxy") == 404
    assert answered(server, "inner.me.workers.dev", **FORGED) == 404
    assert answered(server, "api.example.com", **FORGED) == "routed"
    assert answered(server, "main.localhost", **FORGED) == "main"
    assert answered(server, "shop.example", **FORGED) == "main"


def test_on_every_interface_no_inner_worker_answers(tmp_path, monkeypatch):
    """With --host 0.0.0.0 the admin API also needs the token, whatever the Host header says."""
    monkeypatch.delenv("EDGESIM_ADMIN_TOKEN", raising=False)
    project = project_in(tmp_path / "project")
    with dev(project, tmp_path / "state", "--no-reload", "--host", "0.0.0.0") as running:
        running.url = running.url.replace("0.0.0.0", "127.0.0.1")
        for host in ("inner.localhost", "inner.localhost:80", "inner.me.workers.dev"):
            assert answered(running, host) == 404
        assert answered(running, "api.example.com") == "routed"
        assert answered(running, "203.0.113.1") == "main"
        for host in ("localhost", "127.0.0.1", "inner.localhost"):
            headers = {"Host": host}
            assert running.request(f"{ADMIN}/stats", method="GET", headers=headers)[0] == 403
        ls = ("queue", "ls", "--project", project, "--state", tmp_path / "state")
        assert edgesim(*ls).returncode == 0


def test_headers_of_the_edge_are_the_fronts_own(server):
    """A client's own values are not trusted, nor those of a proxy that is not configured."""
    status, body = server.request(
        "/", method="GET", headers=FORGED | {"CF-Connecting-IP": "6.6.6.6"}
    )
    assert status == 200
    assert json.loads(body) == ["main", f"{server.url}/", "127.0.0.1", None, None]


def test_a_configured_proxy_is_believed(tmp_path):
    """With a trusted proxy local requests need the token too; the commands have one."""
    project = project_in(tmp_path / "project", '[server]\ntrusted_proxies = ["127.0.0.0/8"]\n')
    with dev(project, tmp_path / "state", "--no-reload") as running:
        _, body = running.request("/", method="GET", headers=FORGED)
        assert json.loads(body)[1:] == [
            running.url.replace("http", "https") + "/",
            *("203.0.113.9", "203.0.113.9", None),
        ]
        assert running.request(f"{ADMIN}/stats", method="GET")[0] == 403
        done = edgesim("queue", "ls", "--project", project, "--state", tmp_path / "state")
        assert done.returncode == 0


@pytest.mark.parametrize("proxy", ["10.0.0.0/40", "proxy.example", "10.0.0.1/8", ""])
def test_a_proxy_must_be_an_address_or_a_network(tmp_path, proxy):
    """Exit 2 and one line with file, key and cure."""
    trusted = f'[server]\ntrusted_proxies = ["127.0.0.1", "{proxy}"]\n'
    done = edgesim("check", project_in(tmp_path / "project", trusted))
    assert done.returncode == 2
    assert "edgesim.toml: server.trusted_proxies[1]: " in done.stderr
    assert "write an address or a network such as 10.0.0.0/8" in done.stderr


def test_a_token_that_is_set_is_demanded_everywhere(tmp_path, monkeypatch):
    """On loopback too: admin, schedules, queues API; commands work without the variable too."""
    monkeypatch.setenv("EDGESIM_ADMIN_TOKEN", "s3cret")
    monkeypatch.delenv("EDGESIM_API_TOKEN", raising=False)
    project, state = project_in(tmp_path / "project"), tmp_path / "state"
    paths = {
        f"{ADMIN}/stats": "GET",
        f"{ADMIN}/metrics": "GET",
        f"{ADMIN}/operations": "POST",
        f"{ADMIN}/sql": "POST",
        f"{ADMIN}/drain": "POST",
        f"{ADMIN}/r2?bucket=files&key=k": "GET",
        SCHEDULED: "GET",
        QUEUES: "GET",
    }
    with dev(project, state, "--no-reload") as running:
        for path, method in paths.items():
            for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}):
                status, _ = running.request(path, method=method, headers=headers)
                assert status in {401, 403}, path
        assert not any("scheduled ran" in line for line in running.log)
        for path in (
            f"{ADMIN}/stats",
            "/cdn-cgi/handler/scheduled",
            "/client/v4/accounts/a/queues",
        ):
            headers = {"Authorization": "Bearer s3cret", **FORGED}
            assert running.request(path, method="GET", headers=headers)[0] == 200, path
        command = ("queue", "ls", "--project", project, "--state", state)
        assert edgesim(*command).returncode == 0
        monkeypatch.delenv("EDGESIM_ADMIN_TOKEN")
        assert edgesim(*command).returncode == 0
        assert "s3cret" not in (state / "owner.json").read_text()


def test_the_state_and_what_is_recorded_are_the_users_own(tmp_path):
    """Only the owner can read the files of the platform, its engine and --record."""
    project, state = project_in(tmp_path / "project"), tmp_path / "state"
    record = tmp_path / "seen.jsonl"
    umask = os.umask(0o022)
    try:
        with dev(project, state, "--no-reload", "--record", record) as running:
            running.request("/", method="GET")
            running.sql("SELECT 1 AS one")
            assert running.stop() == 0
    finally:
        os.umask(umask)
    found = [state, record, *(each for each in state.rglob("*") if not each.is_symlink())]
    assert len(found) > 5
    assert [each for each in found if each.stat().st_mode & 0o077] == []


def test_clickhouses_port_takes_the_token_as_a_password(tmp_path, monkeypatch):
    """With a token set: Bearer, Basic, X-ClickHouse-Key or the parameter; else it is refused."""
    monkeypatch.setenv("EDGESIM_ADMIN_TOKEN", "s3cret")
    project = project_in(tmp_path / "project", "[clickhouse]\nport = 0\n")
    words = [sys.executable, "-m", "edgesim.cli", "dev", project, "--port", "0", "--no-reload"]
    process = subprocess.Popen(
        [*map(str, words), "--state", str(tmp_path / "state")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        (url,) = [line.split()[-1] for line in lines if line.startswith("ClickHouse on ")]
        running = Dev(process, url, [])

        def ping(path: str = "/ping", **headers: str) -> int:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return running.request(path, method="GET", headers=named)[0]

        assert ping() == 403
        assert ping("/ping?password=wrong", X_ClickHouse_Key="wrong") == 403
        assert ping(Authorization="Basic %") == 403
        assert ping(Authorization="Bearer s3cret") == 200
        assert ping(Authorization="Basic dTpzM2NyZXQ=") == 200
        assert ping(X_ClickHouse_Key="s3cret") == 200
        assert ping("/ping?user=u&password=s3cret") == 200
        assert ping("/ping?password=s3cret", Origin="http://evil.example") == 403
    finally:
        process.kill()
        process.communicate()


# --- arbitrary requests ---

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
WORD = st.sampled_from(
    ["files", "jobs", "main", "k", "", "-1", "nan", "1e400", "9" * 40, "[", "%00"]
)
QUERY = st.dictionaries(
    st.sampled_from(["bucket", "key", "worker", "cron", "time", "format"]) | TEXT,
    WORD | TEXT,
    max_size=3,
)
ENDPOINTS = ("health", "ready", "stats", "metrics", "operations", "r2")
PATHS = st.one_of(
    st.sampled_from(ENDPOINTS).map(lambda name: f"{ADMIN}/{name}"),
    st.sampled_from(("", "/batch", "/pull", "/ack")).map(
        lambda name: f"{QUEUES}/jobs/messages{name}"
    ),
    st.sampled_from(("/", "/cdn-cgi/", ADMIN, SCHEDULED, QUEUES)),
    TEXT.map(lambda text: f"{ADMIN}/{quote(text)}"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | WORD, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [
        *("queue.ls", "queue.peek", "queue.send", "queue.purge", "queue.redrive"),
        *("r2.ls", "r2.count", "r2.rm", "r2.cp", "r2.requeue"),
    ]
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["queue", "limit", "body", "to", "bucket", "prefix", "key", "since", "source"]),
    JSON,
    max_size=4,
)
FIELDS = [
    *("body", "content_type", "delay_seconds", "messages", "acks", "retries"),
    *("batch_size", "visibility_timeout_ms", "lease_id"),
]
MESSAGE = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON))
BODY = st.one_of(
    st.binary(max_size=20),
    JSON.map(lambda value: json.dumps(value).encode()),
    MESSAGE.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries({"operation": NAMES | TEXT, "arguments": ARGUMENTS}).map(
        lambda value: json.dumps(value).encode()
    ),
    st.just(b"[" * 100_000),
)
HEADERS = st.dictionaries(
    st.sampled_from(["Origin", "Referer", "Authorization", "Content-Type", "Range", "Via", "X"]),
    st.sampled_from(["http://[", "null", "Bearer x", "Basic %", "bytes=9-1", "", "\xff"]),
    max_size=2,
)


@given(
    path=PATHS,
    query=QUERY,
    method=st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS"]),
    headers=HEADERS,
    host=st.sampled_from([None, "localhost", "main.localhost", "[::1]", "x.example", "[", "a@b"]),
    body=BODY,
)
@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_request_makes_an_internal_error(server, path, query, method, headers, host, body):
    """Any path, query, method, header, host and body: a status below 500, and no traceback."""
    logged = len(server.log)
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    sent = {"Authorization": "Bearer x"} | headers | ({"Host": host} if host else {})
    target = path + "?" + "&".join(f"{quote(key)}={quote(value)}" for key, value in query.items())
    try:
        connection.request(method, target, body, sent)
        status = connection.getresponse().status
    finally:
        connection.close()
    assert status < 500
    assert not [line for line in server.log[logged:] if "Traceback" in line]


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("r2.page", {"bucket": 5}),
        ("r2.page", {"bucket": ["x"]}),
        ("r2.ls", {"bucket": "x", "prefix": {}}),
        ("r2.notify", {"bucket": "x", "key": None}),
        ("pipeline.roll", {"pipeline": []}),
        ("r2.page", {"bucket": "x", "simulator": 1}),
    ],
)
def test_arguments_of_a_wrong_type_are_refused(server, operation, arguments):
    """400 that names the operation, and no traceback."""
    body = json.dumps({"operation": operation, "arguments": arguments}).encode()
    status, reply = server.request(f"{ADMIN}/operations", body)
    assert (status, reply.decode().partition(":")[0]) == (400, operation)

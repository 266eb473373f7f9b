"""Reach of a Worker's fetch in ``dev`` and ``serve``, with real servers and real redirects."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Dev, dev

ACCOUNT = """
workers = ["main", "other"]
[backends]
r2 = "memory:"
queues = "memory:"
[clickhouse]
port = 0
"""
WORKER = """
import json
from workers import Response, WorkerEntrypoint, fetch

HEADERS = {"edgesim-lineage": "forged", "x-own": "1", "authorization": "Bearer x"}

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        url = await request.text()
        if not url:
            return Response(f"worker {self.env.NAME} {json.dumps(sorted(request.headers.keys()))}")
        try:
            found = await fetch(url, headers=HEADERS)
            return Response(f"{found.status} {await found.text()}")
        except Exception as error:
            return Response(f"{type(error).__name__}: {error}")
"""
REFUSED = b"Network connection lost"


def project(folder: Path, account: str = ACCOUNT) -> Path:
    for name in ("main", "other"):
        (folder / name).mkdir(parents=True)
        (folder / name / "main.py").write_text(WORKER)
        wrangler = {
            "name": name,
            "main": "main.py",
            "compatibility_date": "2026-10-01",
            "compatibility_flags": ["python_workers"],
            "vars": {"NAME": name},
        }
        (folder / name / "wrangler.jsonc").write_text(json.dumps(wrangler))
    (folder / "edgesim.toml").write_text(account)
    return folder


Answer = Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str], bytes]]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that disconnected."""


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """Run a server that does not belong to edgesim and yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer(self)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 (the library's name)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with Server(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def ask(running: Dev, url: str, worker: str = "main") -> bytes:
    status, body = running.request(body=url.encode(), headers={"host": f"{worker}.localhost"})
    assert status == 200, body
    return body


@pytest.fixture(scope="module")
def running(tmp_path_factory: Any) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("reach")
    with dev(project(folder / "project"), folder / "state", "--isolation", "warm") as running:
        yield running


def own_ports(running: Dev) -> list[int]:
    assert running.process.stdout is not None
    line = running.process.stdout.readline()
    assert line.startswith("ClickHouse on")
    return [int(running.url.rpartition(":")[2]), int(line.rpartition(":")[2])]


def test_own_ports_are_refused_in_every_form(running):
    """Admin, queues API, Workers' port and ClickHouse's: by name, number and IPv6 form."""
    for port in own_ports(running):
        for host in (
            *("127.0.0.1", "localhost", "0.0.0.0", "2130706433", "0x7f.1", "127.1"),
            *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]"),
        ):
            for path in ("/", "/cdn-cgi/edgesim/stats", "/client/v4/accounts/a/queues"):
                found = ask(running, f"http://{host}:{port}{path}")
                assert REFUSED in found, (host, path, found)
    running.wait_log("fetch refused", "main", "::ffff:7f00:1", "edgesim")


def test_another_edgesim_takes_no_worker_for_its_operator(running, tmp_path):
    """Its Workers respond like any local service; its admin, queues API and ClickHouse do not."""
    with dev(project(tmp_path / "another"), tmp_path / "state") as another:
        front, clickhouse = own_ports(another)
        assert ask(running, f"http://127.0.0.1:{front}/").startswith(b"200 worker main")
        for url in (
            f"http://127.0.0.1:{front}/cdn-cgi/edgesim/stats",
            f"http://localhost:{front}/cdn-cgi/handler/scheduled",
            f"http://127.0.0.1:{clickhouse}/?query=SELECT+1",
        ):
            assert b"a Worker may not" in ask(running, url), url
        queues = f"http://127.0.0.1:{front}/client/v4/accounts/a/queues"
        assert ask(running, queues).startswith(b"403 ")


def test_a_redirect_to_an_own_port_is_refused(running):
    """Every hop of a redirect is checked like the first URL."""
    port = running.url.rpartition(":")[2]

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        if request.path == "/two":
            return 307, {"Location": "/one"}, b"x" * 100_000
        return 302, {"Location": f"http://127.0.0.1:{port}/cdn-cgi/edgesim/stats"}, b"moved"

    with server(answer) as url:
        assert REFUSED in ask(running, f"{url}/one")
        assert REFUSED in ask(running, f"{url}/two")


def test_other_services_and_workers_stay_reachable(running):
    """A loopback service, a Worker by its host, and a redirect from one to the other."""

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        if request.path == "/to-worker":
            return 302, {"Location": "http://other.localhost/"}, b""
        return 200, {}, b"a service"

    with server(answer) as url:
        assert ask(running, f"{url}/x") == b"200 a service"
        assert ask(running, "http://other.localhost/").startswith(b"200 worker other")
        assert ask(running, f"{url}/to-worker").startswith(b"200 worker other")


def test_a_redirect_without_end(running):
    """After twenty hops an error, as in the fetch standard."""
    seen = []

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        seen.append(request.path)
        return 302, {"Location": f"/{len(seen)}"}, b""

    with server(answer) as url:
        assert b"Too many redirects" in ask(running, url)
    assert len(seen) == 21


def test_credentials_stay_at_their_origin(running):
    """A cookie that one Worker receives is sent in no other request of any Worker."""
    cookies = []

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        cookies.append(request.headers.get("Cookie"))
        return 200, {"Set-Cookie": "session=1; Path=/"}, b""

    with server(answer) as url:
        for worker in ("main", "main", "other"):
            ask(running, url.replace("127.0.0.1", "localhost"), worker)
    assert cookies == [None, None, None]


def test_one_workers_connections_are_its_own(running):
    """While one Worker's fetches hang, up to its limit and beyond, another's succeed."""
    waiting = threading.Semaphore(0)
    release = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        if request.path == "/hang":
            waiting.release()
            release.wait(60)
        return 200, {}, b"here"

    with server(answer) as url:
        clients = [threading.Thread(target=ask, args=(running, f"{url}/hang")) for _ in range(140)]
        for each in clients:
            each.start()
        try:
            for _ in range(128):
                assert waiting.acquire(timeout=60)
            assert ask(running, f"{url}/", "other") == b"200 here"
            assert not waiting.acquire(blocking=False)
        finally:
            release.set()
            for each in clients:
                each.join()


def test_a_loop_over_a_proxy_ends(running):
    """The call depth stays with a request that leaves and returns; Workers do not see how."""
    host, port = running.url.removeprefix("http://").split(":")
    seen = []

    def forward(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        seen.append(dict(request.headers))
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        headers["Host"] = "main.localhost"
        with closing(connection):
            connection.request("POST", "/", body=proxy.encode(), headers=headers)
            answer = connection.getresponse()
            return answer.status, {}, answer.read()

    with server(forward) as proxy:
        found = ask(running, proxy)
    assert b"error code: 1019" in found
    assert len(seen) == 17
    assert {each["x-own"] for each in seen} == {"1"}
    assert all(each["edgesim-lineage"] != "forged" for each in seen)
    names = ask(running, "http://other.localhost/")
    assert b"edgesim-lineage" not in names
    assert b"x-own" in names


def test_serve_reaches_the_public_internet_and_what_is_listed(tmp_path):
    """Loopback is refused under ``serve``, except for hosts listed in ``[outbound] allow``."""
    with (
        server(lambda _: (200, {}, b"listed")) as listed,
        server(lambda _: (200, {}, b"not listed")) as other,
    ):
        address = listed.removeprefix("http://")
        account = f'{ACCOUNT}[outbound]\nallow = ["{address}"]\n'
        folder = project(tmp_path / "project", account)
        with dev(folder, tmp_path / "state", command="serve") as running:
            assert ask(running, listed) == b"200 listed"
            for url in (other, other.replace("127.0.0.1", "localhost"), "http://169.254.169.254/"):
                assert REFUSED in ask(running, url)
            running.wait_log("fetch refused", "allow")


def test_a_wrong_list_is_refused_at_the_start(tmp_path):
    """One line with file, key and the permitted forms."""
    from tests.processes import edgesim

    folder = project(tmp_path / "project", f'{ACCOUNT}[outbound]\nallow = ["10.0.0.0/99"]\n')
    found = edgesim("check", folder)
    assert found.returncode == 2
    assert "outbound.allow[0]" in found.stdout + found.stderr

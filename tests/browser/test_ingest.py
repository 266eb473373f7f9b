"""HTTP ingest from web pages of other origins, in a real browser."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.processes import Dev, dev
from tests.simulated import write_worker

MODULE = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("OK")
"""
SEND = """
async ([url, records, headers]) => {
    try {
        const init = {method: "POST", headers, body: JSON.stringify(records)};
        const response = await fetch(url, init);
        return [response.status, await response.json()];
    } catch (error) {
        return [0, error.name];
    }
}
"""


class Shop(BaseHTTPRequestHandler):
    """A page of another origin."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>shop</title>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def shop() -> Iterator[str]:
    """The origin of a server of pages."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def running(tmp_path: Path, shop: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dev]:
    monkeypatch.setenv("EDGESIM_INGEST_TOKEN", "secret")
    project = tmp_path / "project"
    project.mkdir()
    streams = {"shop": [shop], "any": ["*"], "other": ["https://shop.example"], "none": []}
    lines = ['workers = ["main"]']
    for name, origins in streams.items():
        lines += [f"[streams.{name}.http]", f"cors = {json.dumps(origins)}"]
    lines += ["[streams.safe.http]", "auth = true", f"cors = {json.dumps([shop])}"]
    (project / "edgesim.toml").write_text("\n".join(lines))
    write_worker(project, "main", MODULE)
    with dev(project, tmp_path / "state", "--no-reload") as found:
        yield found


def sent(page: Page, running: Dev, stream: str, **headers: str) -> tuple[int, Any]:
    """Send two records by the page's fetch; status 0 if the browser refuses."""
    url = f"{running.url}/cdn-cgi/edgesim/ingest/{stream}"
    records = [{"n": 1}, {"n": 2}]
    wanted = {"content-type": "application/json"} | headers
    status, body = page.evaluate(SEND, [url, records, wanted])
    return status, body


def test_a_page_of_an_allowed_origin_sends(running, page, shop):
    """The browser's preflight is answered; the page reads how many records are safe."""
    page.goto(shop)
    for stream in ("shop", "any"):
        assert sent(page, running, stream) == (200, {"success": True, "result": {"committed": 2}})
        assert running.stats()["streams"][stream]["records"] == 2


def test_other_pages_are_refused_by_the_browser(running, page, shop):
    """Without the origin in the stream's rule the preflight fails, and nothing is sent."""
    page.goto(shop)
    for stream in ("other", "none"):
        assert sent(page, running, stream) == (0, "TypeError")
        assert running.stats()["streams"][stream]["records"] == 0


def test_a_page_reads_errors_and_sends_a_token(running, page, shop):
    """The rule holds for errors too, and the preflight allows the header of the token."""
    page.goto(shop)
    status, body = sent(page, running, "safe")
    assert (status, body["errors"][0]["code"]) == (401, 401)
    assert sent(page, running, "safe", authorization="Bearer secret")[0] == 200
    assert running.stats()["streams"]["safe"]["records"] == 2

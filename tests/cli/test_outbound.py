"""A Worker's fetch to a real server outside the project."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.processes import dev

ACCOUNT = 'workers = ["main"]\n[backends]\nr2 = "memory:"\nqueues = "memory:"\n'
WORKER = """
from workers import Response, WorkerEntrypoint, fetch


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        found = await fetch(await request.text(), method="POST", body="asked")
        names = sorted(name.lower() for name, _ in found.headers.items())
        return Response(f"{found.status} {await found.text()} {' '.join(names)}")
"""
WRANGLER = {
    "name": "main",
    "main": "main.py",
    "compatibility_date": "2026-10-01",
    "compatibility_flags": ["python_workers"],
}


class Far(BaseHTTPRequestHandler):
    """A server that sends headers which every HTTP library knows, and one that none does."""

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["content-length"]))
        self.send_response_only(201)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", "6")
        self.send_header("ETag", '"1"')
        self.send_header("X-Far", "1")
        self.end_headers()
        self.wfile.write(asked + b"!")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def far() -> Iterator[str]:
    """The URL of an external server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Far) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.mark.parametrize("level", ["process", "warm", "inline"])
def test_a_fetch_out_is_answered(far: str, level: str, tmp_path: Path) -> None:
    """Status, headers and body of the server reach the Worker, at every level."""
    worker = tmp_path / "project" / "main"
    worker.mkdir(parents=True)
    (worker / "main.py").write_text(WORKER)
    (worker / "wrangler.jsonc").write_text(json.dumps(WRANGLER))
    (worker.parent / "edgesim.toml").write_text(ACCOUNT)
    with dev(worker.parent, tmp_path / "state", "--isolation", level) as running:
        answer = running.request(body=far.encode())
        assert answer == (200, b"201 asked! content-length content-type etag x-far")

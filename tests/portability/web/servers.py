"""The two runtimes under comparison, and the origin that their Workers fetch from."""

import gzip
import json
import shutil
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.portability.node import MODULES
from tests.ports import reserved_port
from tests.processes import dev

HERE = Path(__file__).parent
COMPATIBILITY_DATE = "2026-07-01"
CAPNP = """
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .main),
    (name = "callee", worker = .callee),
    (name = "internet", network = (allow = ["public", "private"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:%(port)d", http = (), service = "main")],
);
const callee :Workerd.Worker = (
  modules = [(name = "worker.mjs", esModule = embed "worker.mjs")],
  compatibilityDate = "%(date)s",
  bindings = [(name = "ORIGIN", text = "%(origin)s")],
);
const main :Workerd.Worker = (
  modules = [(name = "worker.mjs", esModule = embed "worker.mjs")],
  compatibilityDate = "%(date)s",
  bindings = [(name = "ORIGIN", text = "%(origin)s"), (name = "S", service = "callee")],
);
"""
PACKED = gzip.compress(b"packed at the origin", mtime=0)
ANSWERS = {
    "/plain": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nplain",
    "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "/until-close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end",
    "/gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
    % (len(PACKED), PACKED),
    "/304": b'HTTP/1.1 304 Not Modified\r\nETag: "v1"\r\n\r\n',
    "/204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "/teapot": b"HTTP/1.1 418 Short And Stout\r\nContent-Length: 2\r\n\r\nno",
    "/no-reason": b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
    "/cookies": b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Twice: 1\r\nX-Twice: 2"
    b"\r\nContent-Length: 0\r\n\r\n",
    "/utf-8": "HTTP/1.1 200 OK\r\nX-City: Kraków\r\nContent-Length: 0\r\n\r\n".encode(),
    "/hop": b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nX-End: yes\r\nContent-Length: 1\r\n\r\n1",
    "/loop": b"HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n",
    "/no-location": b"HTTP/1.1 302 Found\r\nContent-Length: 4\r\n\r\nhere",
    "/relative/": b"HTTP/1.1 302 Found\r\nLocation: ../plain\r\nContent-Length: 0\r\n\r\n",
    "/fragment": b"HTTP/1.1 302 Found\r\nLocation: /plain#part\r\nContent-Length: 0\r\n\r\n",
}
"""Responses by path; in addition ``/to/<status>`` redirects and ``/raw`` returns the request."""


class _Origin(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while True:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = self.rfile.readline()
                if not line:
                    return
                head += line
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            body = self.rfile.read(length)
            if b"transfer-encoding: chunked" in head.lower():
                body = self._chunks()
            path = head.split()[1].decode("latin-1").partition("?")[0]
            method = head.split()[0]
            answer = self._answer(path, method, head, body)
            if method == b"HEAD":
                answer = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            self.wfile.write(answer)
            if b"Connection: close" in answer:
                return

    def _chunks(self) -> bytes:
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _answer(self, path: str, method: bytes, head: bytes, body: bytes) -> bytes:
        if path.startswith("/to/"):
            status = path.removeprefix("/to/")
            return f"HTTP/1.1 {status} R\r\nLocation: /raw\r\nContent-Length: 0\r\n\r\n".encode()
        if path == "/raw":
            names = {"x-kept", "content-type", "authorization"}
            lines = [line.strip().lower() for line in head.decode("latin-1").split("\r\n")[1:]]
            kept = sorted(line for line in lines if line.partition(":")[0] in names)
            text = json.dumps([method.decode(), kept, body.decode("latin-1")]).encode()
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
        return ANSWERS[path]


@contextmanager
def origin() -> Iterator[str]:
    """Run the origin and yield its URL."""

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), _Origin) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@contextmanager
def workerd(folder: Path, origin_url: str) -> Iterator[int]:
    """Run workerd with the JavaScript Worker and yield its port."""
    folder.mkdir()
    shutil.copy(HERE / "worker.mjs", folder)
    values = {"origin": origin_url, "date": COMPATIBILITY_DATE}
    with served(folder, CAPNP, values) as port:
        yield port


@contextmanager
def served(folder: Path, config: str, values: dict[str, str]) -> Iterator[int]:
    """Run workerd with a configuration, which contains ``port`` and the values; yield its port."""
    binary = next(iter(sorted(MODULES.glob("@cloudflare/workerd-*/bin/workerd"))))
    port = reserved_port()
    (folder / "config.capnp").write_text(config % {**values, "port": port})
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, "serve", folder / "config.capnp"], stdout=log, stderr=log, cwd=folder
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "workerd does not listen"
                time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def edgesim(folder: Path, origin_url: str, isolation: str = "warm") -> Iterator[int]:
    """Run edgesim with the Python Worker and yield its port."""
    folder.mkdir()
    (folder / "edgesim.toml").write_text('workers = ["main", "callee"]\nentry = "main"\n')
    for name, services in {"main": [{"binding": "S", "service": "callee"}], "callee": []}.items():
        worker = folder / name
        worker.mkdir()
        shutil.copy(HERE / "worker.py", worker)
        settings = {
            "name": name,
            "main": "worker.py",
            "compatibility_date": COMPATIBILITY_DATE,
            "compatibility_flags": ["python_workers"],
            "vars": {"ORIGIN": origin_url},
            "services": services,
        }
        (worker / "wrangler.json").write_text(json.dumps(settings))
    arguments = ("--no-reload", "--isolation", isolation)
    with dev(folder, folder.with_name("state"), *arguments) as running:
        yield int(running.url.rpartition(":")[2])


def exchange(port: int, request: bytes) -> bytes:
    """Return all bytes that the server sends until it closes, as the request asks it to."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.settimeout(60)
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
        return answer

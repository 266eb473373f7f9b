"""What a request costs at each isolation level, beside a bare ASGI application; `make bench`.

Everything is measured in one run on one machine, so read the ratios.  --events N sets how many
requests each level gets.
"""

import argparse
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.processes import WORKERS, dev

BODY = b'{"event":"kill","player_id":"p1","ts":1767225600000,"props":{"damage":7,"weapon":"bow"}}'
CLIENTS = 8
BARE = """
import asyncio, sys, uvicorn
async def app(scope, receive, send):
    await receive()
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"OK"})
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
"""


def load(url, requests):
    """Requests per second, and the latencies in ms of CLIENTS connections kept open."""
    parts = urlsplit(url)
    latencies = []
    refused = []

    def client():
        connection = HTTPConnection(parts.hostname, parts.port, timeout=60)
        for _ in range(requests // CLIENTS):
            started = time.perf_counter()
            connection.request("POST", "/", BODY)
            answer = connection.getresponse()
            answer.read()
            latencies.append((time.perf_counter() - started) * 1000)
            if answer.status != 200:
                refused.append(answer.status)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    assert not refused, refused[:3]
    return len(latencies) / seconds, statistics.median(latencies)


def bare(requests):
    """The reference: the same server with nothing behind it."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", BARE, str(port)])
    try:
        url = f"http://127.0.0.1:{port}/"
        while True:
            try:
                urllib.request.urlopen(url, b"").close()
                break
            except OSError:
                time.sleep(0.05)
        return load(url, requests)
    finally:
        process.kill()
        process.wait()


def level(name, requests):
    """The whole chain behind the receiver at one level; nothing may be lost."""
    folder = Path(tempfile.mkdtemp(prefix="edgesim-bench-"))
    try:
        with dev(WORKERS, folder, "--no-reload", "--quiet", "--isolation", name) as running:
            result = load(running.url, requests)
            running.drain()
            [row] = running.sql("SELECT count() AS n FROM events")
            assert int(row["n"]) == requests // CLIENTS * CLIENTS, row
            return result
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=2_000)
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {CLIENTS} connections")
    reference, latency = bare(options.events * 4)
    print(f"{'bare ASGI app':>16} {reference:8.0f}/s  p50 {latency:6.2f} ms")
    for name in ("process", "inline"):
        rate, latency = level(name, options.events)
        share = rate / reference
        print(f"{name:>16} {rate:8.0f}/s  p50 {latency:6.2f} ms  {share:.3f} of the bare app")


if __name__ == "__main__":
    main()

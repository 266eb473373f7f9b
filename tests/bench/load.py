"""A load generator: each kept-alive connection sends its next request after the last response.

It is a process of its own, to disturb the measured one as little as possible:
``python load.py HOST PORT CONNECTIONS REQUESTS [PAUSE_SECONDS [EVENTS]]``.  It prints JSON:
seconds, statuses, latency percentiles in ms.  With a pause each connection waits that long after a
response.  With more than one event a request posts an array of so many.
"""

import asyncio
import json
import sys
import time

import uvloop

BODY = b'{"event":"kill","player_id":"p1","ts":1767225600000,"props":{"damage":7,"weapon":"bow"}}'


def request_of(events):
    """Return the bytes of a request with so many events."""
    body = BODY if events == 1 else b"[" + b",".join([BODY] * events) + b"]"
    return (
        b"POST / HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )


class Connection(asyncio.Protocol):
    def __init__(self, run):
        self.run = run
        self.buffer = b""

    def connection_made(self, transport):
        self.transport = transport
        self.next()

    def next(self):
        if not self.run.take():
            self.transport.close()
            return
        self.sent = time.perf_counter()
        self.transport.write(self.run.request)

    def data_received(self, data):
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        at = lower.index(b"content-length:") + 15
        length = int(lower[at:].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self.buffer = b""
        self.run.done(int(head[9:12]), time.perf_counter() - self.sent)
        if self.run.pause:
            asyncio.get_running_loop().call_later(self.run.pause, self.next)
        else:
            self.next()

    def connection_lost(self, exc):
        self.run.closed()


class Run:
    def __init__(self, connections, requests, pause, events):
        self.request = request_of(events)
        self.left = requests
        self.pause = pause
        self.open = connections
        self.latencies = []
        self.statuses = {}
        self.over = asyncio.Event()

    def take(self):
        self.left -= 1
        return self.left >= 0

    def done(self, status, seconds):
        self.latencies.append(seconds * 1000)
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def closed(self):
        self.open -= 1
        if not self.open:
            self.over.set()


async def main(host, port, connections, requests, pause=0.0, events=1):
    run = Run(connections, requests, pause, int(events))
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(run), host, port)
    await run.over.wait()
    seconds = time.perf_counter() - started
    found = sorted(run.latencies)
    shown = {f"p{q}": round(found[min(len(found) - 1, len(found) * q // 100)], 3) for q in (50, 99)}
    print(json.dumps({"seconds": seconds, "statuses": run.statuses, "latency_ms": shown}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], *map(int, sys.argv[2:5]), *map(float, sys.argv[5:])))

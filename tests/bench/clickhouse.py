"""The cost of each way into and out of ClickHouse; `make bench`.

One run, one machine, rounds interleaved: read the ratios.  Inserts are gzip NDJSON through the
gateway, as the insert Worker's are; the reference is the server's own HTTP interface without
edgesim in between (urllib, the same bytes).  Figures are medians, minima and maxima.
"""

import argparse
import gzip
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import quote

import anyio

sys.path.insert(0, str(Path(__file__).parents[2]))
from edgesim import drivers
from edgesim.clickhouse.gateway import Gateway
from edgesim.model import HttpRequest, read_all
from tests.servers_clickhouse import running_server

TABLE = (
    "CREATE TABLE bench (event String, player_id String, ts UInt64, match_id String, "
    "platform String, region String, damage UInt32, props String) ENGINE = MergeTree "
    "ORDER BY (event, ts)"
)
INSERT = "INSERT INTO bench FORMAT JSONEachRow"
SELECT = "SELECT event, player_id, ts, damage FROM bench LIMIT {rows} FORMAT JSONEachRow"
SMALL = "SELECT 1"


def packed(rows):
    """gzip NDJSON, about 150 bytes a row."""
    lines = (
        json.dumps(
            {
                "event": "kill",
                "player_id": f"player-{n % 977}",
                "ts": 1_767_225_600_000 + n,
                "match_id": f"m{n % 53}",
                "platform": "pc",
                "region": "eu",
                "damage": n % 100,
                "props": '{"weapon":"bow"}',
            }
        )
        for n in range(rows)
    )
    return gzip.compress("\n".join(lines).encode(), 1)


async def ask(gateway, sql, body=b""):
    """Run a statement and return the reply's bytes; any error ends the run."""
    headers = [("content-encoding", "gzip")] if body else []
    url = f"http://clickhouse/?query={quote(sql)}"
    answer = await gateway.fetch(HttpRequest("POST", url, headers, body))
    text = await read_all(answer.body)
    assert answer.status == 200, text
    return text


class Bare:
    """The server itself, without edgesim."""

    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}/"

    async def fetch(self, request):
        """Send a request; the same interface as the gateway's ``fetch``."""
        url = self.base + request.url.partition("/?")[1][1:] + request.url.partition("/?")[2]
        sent = urllib.request.Request(url, request.body, dict(request.headers), method="POST")
        with urllib.request.urlopen(sent, timeout=300) as answer:  # noqa: ASYNC210 (nothing else runs)
            return type("Answer", (), {"status": answer.status, "body": answer.read()})


async def measure(ways, arguments):
    """Return {(job, way): [rows per second, ...]}; each round empties the table first."""
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(arguments.rounds):
        for rows in arguments.rows:
            body = packed(rows)
            for name, gateway in ways.items():
                await ask(gateway, "DROP TABLE IF EXISTS bench")
                await ask(gateway, TABLE)
                jobs = ((f"insert {rows}", INSERT, body), (f"select {rows}", SELECT, b""))
                for job, sql, data in jobs:
                    started = time.perf_counter()
                    await ask(gateway, sql.format(rows=rows), data)
                    seconds = time.perf_counter() - started
                    found.setdefault((job, name), []).append(rows / seconds)
        for name, gateway in ways.items():
            started = time.perf_counter()
            for _ in range(100):
                await ask(gateway, SMALL)
            found.setdefault(("SELECT 1", name), []).append(100 / (time.perf_counter() - started))
    return found


async def run(arguments):
    """Open every way and print one table of results."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgesim-bench-")))
        (folder / "server").mkdir()
        server = stack.enter_context(running_server(folder / "server"))
        urls = {
            "clickhouse": f"clickhouse://127.0.0.1:{server.tcp}",
            "clickhouse+http": f"clickhouse+http://127.0.0.1:{server.http}",
            "chdb": f"chdb:{folder}/chdb",
        }
        ways: dict[str, Bare | Gateway] = {"the server bare": Bare(server.http)}
        for scheme, url in urls.items():
            open_clickhouse = drivers.opener("clickhouse", url)
            driver = await stack.enter_async_context(open_clickhouse(url))
            ways[scheme] = Gateway(driver)
        show(await measure(ways, arguments))


def show(found):
    """Print rows per second and the ratio to the server's own interface."""
    for (job, way), values in found.items():
        median = statistics.median(values)
        ratio = median / statistics.median(found[job, "the server bare"])
        spread = f"({min(values):,.0f}-{max(values):,.0f})"
        print(f"{job:16} {way:16} {median:12,.0f} a second {spread:28} {ratio:5.2f}")


def main():
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    anyio.run(run, parser.parse_args())


if __name__ == "__main__":
    main()

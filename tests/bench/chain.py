"""Requests per second and CPU per request of the whole chain, beside other runtimes; `make bench`.

In one run on one machine, so read the ratios: a bare ASGI application (the reference), raw workerd
with a JavaScript Tail Worker, Miniflare and wrangler dev with the same Workers, and edgesim at each
level with the whole chain into ClickHouse, each with one event and with 100 events a request.  Each
event must be counted at the end of the chain.  Rounds are interleaved.  CPU time is that of the
server's processes until they are idle again, so a busy machine changes it less than the rate.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from tests.bench import chart, cpu, servers

CONNECTIONS = 32
WARM_UP = 200
SYSTEMS = {
    "bare ASGI app": (servers.bare, "", 4.0),
    "workerd + tail": (servers.workerd, "", 2.0),
    "Miniflare + tail": (servers.miniflare, "", 0.5),
    "wrangler dev + tail": (servers.wrangler, "", 0.1),
    "edgesim warm": (servers.edgesim, "warm", 1.0),
    "edgesim inline": (servers.edgesim, "inline", 1.0),
    "edgesim process": (servers.edgesim, "process", 0.1),
}
"""System -> its server, the isolation level, and its requests as a multiple of ``--requests``."""
PER_REQUEST = (1, 100)
FEWER = 10
"""With many events a request, this many times fewer requests."""


def load(url, requests, events):
    """Run the load generator; return its seconds."""
    parts = urlsplit(url)
    command = [sys.executable, str(HERE / "load.py"), parts.hostname, str(parts.port)]
    command += [str(CONNECTIONS), str(requests), "0", str(events)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert found["statuses"] == {"200": requests}, found
    return found["seconds"]


def measure(name, requests, events):
    """Return one round of one system: rate, CPU microseconds a request by process, rows' delay."""
    opened, level, share = SYSTEMS[name]
    requests = max(WARM_UP, int(requests * share) // (1 if events == 1 else FEWER))
    with opened(level) as server:
        load(server.url, WARM_UP, events)
        before = cpu.settled(server.pid)
        seconds = load(server.url, requests, events)
        loaded = time.monotonic()
        after = cpu.settled(server.pid)
        delay = 0.0
        if server.rows is not None:
            rows = server.rows()
            delay = time.monotonic() - loaded
            assert rows == (requests + WARM_UP) * events, f"{name}: {rows} rows"
    used = {role: (after[role] - before.get(role, 0.0)) * 1e6 / requests for role in after}
    return {"per_second": requests / seconds, "cpu_us": used, "rows_seconds": delay}


def rounds(options):
    """Return the rounds of every system that is installed, interleaved."""
    found: dict[tuple[int, str], list[Any]] = {}
    for _ in range(options.rounds):
        for events in PER_REQUEST:
            for name in SYSTEMS:
                if options.only and not any(each in name for each in options.only):
                    continue
                try:
                    one = measure(name, options.requests, events)
                except servers.Unavailable as missing:
                    print(f"{name} is left out: no {missing}")
                    continue
                found.setdefault((events, name), []).append(one)
    return found


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def row_of(measured):
    """Return the row of a table from the rounds of one system."""
    roles = sorted({role for one in measured for role in one["cpu_us"]})
    by_role = {
        role: statistics.median(one["cpu_us"].get(role, 0.0) for one in measured) for role in roles
    }
    return {
        "per_second": spread([one["per_second"] for one in measured]),
        "cpu_us": spread([sum(one["cpu_us"].values()) for one in measured]),
        "cpu_us_by_process": {role: round(used, 1) for role, used in by_role.items() if used >= 1},
        "rows_seconds": statistics.median(one["rows_seconds"] for one in measured),
    }


def table_of(found):
    """Print and return a table for each number of events a request."""
    tables = {}
    for events in PER_REQUEST:
        table = {name: row_of(each) for (count, name), each in found.items() if count == events}
        reference = table.get("bare ASGI app")
        print(f"\n{events} events a request, {CONNECTIONS} connections (spread: least-most)")
        print(
            f"{'':20} {'requests/s':>10} {'spread':>15} {'ratio':>6} {'CPU us':>8} {'spread':>13}"
        )
        for name, row in table.items():
            rate, used = row["per_second"], row["cpu_us"]
            if reference is not None:
                row["of_the_bare_app"] = rate["median"] / reference["per_second"]["median"]
            print(
                f"{name:20} {rate['median']:10.0f} {rate['least']:7.0f}-{rate['most']:<7.0f}"
                f" {row.get('of_the_bare_app', 0.0):6.3f} {used['median']:8.1f}"
                f" {used['least']:6.0f}-{used['most']:<6.0f} {row['cpu_us_by_process']}"
            )
        tables[str(events)] = table
    return tables


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=8_000, help="requests a round at warm")
    parser.add_argument("--only", nargs="*", metavar="SYSTEM", help="part of a system's name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="write an SVG chart here")
    options = parser.parse_args()
    machine = f"{platform.platform()}, {platform.processor() or platform.machine()}"
    figures: dict[str, Any] = {"machine": machine, "python": platform.python_version()}
    figures |= {"versions": servers.versions(), "rounds": options.rounds}
    print(*(f"{name}: {value}" for name, value in figures.items()), sep="\n")
    figures["events_a_request"] = table_of(rounds(options))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    if options.chart:
        options.chart.write_text(chart.bars(figures["events_a_request"]["1"]))


if __name__ == "__main__":
    main()

"""edgesim tap: print a live sample of the records that pass one place of the running project.

A place is workers.NAME (console lines), tails.NAME (traces for a Tail Worker), pipelines.NAME,
streams.NAME, r2.NAME (changes of objects), queues.NAME (messages sent, delivered and moved) or
clickhouse (inserts). Ends with Ctrl-C, when nobody reads its output, or when the project stops.
Records beyond --rate are left out and counted on standard error; the project never waits for it.
"""

from __future__ import annotations

import argparse
import json
from http.client import HTTPResponse
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

from edgesim.cli import logs
from edgesim.cli.arguments import add_project, project_of
from edgesim.cli.output import complain, exit_if_nobody_reads
from edgesim.cli.running import ask, server_events, serving
from edgesim.cli.terminal import printable
from edgesim.errors import RunError, UsageError

RATE = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim tap``."""
    parser.add_argument("place", help="such as pipelines.NAME, or the name of a Worker")
    parser.add_argument("--json", action="store_true", help="print each record as a line of JSON")
    parser.add_argument(
        "--rate", type=int, default=RATE, metavar="N", help=f"records a second (default: {RATE})"
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after N records")
    add_project(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print until the end; UsageError if no project runs or it has no such place."""
    logs.configure(verbose=False)
    if arguments.count is not None and arguments.count < 1:
        raise UsageError("--count must be 1 or more")
    project = project_of(arguments)
    owner = serving(project)
    if owner is None:
        raise UsageError(f"no project runs on {project.state}; start it with `edgesim dev`")
    query = f"place={quote(arguments.place, safe='')}&rate={arguments.rate}"
    try:
        with ask(owner, f"/tap?{query}", method="GET") as answer:
            if answer.status != 200:
                error = UsageError if answer.status == 400 else RunError
                raise error(answer.read().decode().strip())
            _print(answer, owner.url or "", arguments)
    except KeyboardInterrupt:
        return 0
    return 0


def _print(answer: HTTPResponse | HTTPError, url: str, arguments: argparse.Namespace) -> None:
    left = arguments.count
    for name, data in server_events(answer):
        if name == "place":
            complain(f"watching {json.loads(data)} at {url}")
        elif name == "skipped":
            complain(f"edgesim: {data} records were not shown; --rate allows more")
        elif name == "record":
            print(data if arguments.json else _pretty(json.loads(data)), flush=True)
            left = None if left is None else left - 1
            if left == 0:
                return
        else:
            exit_if_nobody_reads()


def _pretty(shown: dict[str, Any]) -> str:
    record = shown["record"]
    text = record if isinstance(record, str) else json.dumps(record, ensure_ascii=False)
    return printable(f"{shown['at'][11:23]} {text}")

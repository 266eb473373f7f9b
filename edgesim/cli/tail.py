"""edgesim tail: print invocations of the running project as they finish, like ``wrangler tail``.

Ends with Ctrl-C, or when the project stops. A reader that is too slow misses invocations, which are
counted on standard error; the project never waits for it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import datetime
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

_STATUSES = {"ok": "ok", "error": "not ok", "canceled": "canceled"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim tail``."""
    parser.add_argument("worker", nargs="?", help="name of a Worker (default: all)")
    parser.add_argument(
        "--format",
        choices=("pretty", "json"),
        help="pretty, or one JSON trace a line (default: pretty on a terminal, else json)",
    )
    parser.add_argument(
        "--status", choices=tuple(_STATUSES), action="append", help="outcome; repeatable"
    )
    parser.add_argument("--search", metavar="TEXT", help="text in a console line or exception")
    parser.add_argument("--method", action="append", type=str.upper, help="HTTP method; repeatable")
    add_project(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print until the project stops; UsageError if none runs or it has no such Worker."""
    logs.configure(verbose=False)
    project = project_of(arguments)
    owner = serving(project)
    if owner is None:
        raise UsageError(f"no project runs on {project.state}; start it with `edgesim dev`")
    if arguments.worker is not None and arguments.worker not in project.workers:
        known = ", ".join(project.workers)
        raise UsageError(f"the project has no Worker {arguments.worker!r}; known: {known}")
    pretty = (arguments.format or ("pretty" if sys.stdout.isatty() else "json")) == "pretty"
    query = f"?worker={quote(arguments.worker, safe='')}" if arguments.worker else ""
    try:
        with ask(owner, f"/events{query}", method="GET") as answer:
            if answer.status != 200:
                raise RunError(answer.read().decode().strip())
            complain(f"tailing {arguments.worker or 'all Workers'} at {owner.url}")
            for item in _invocations(answer):
                if _is_wanted(item, arguments):
                    print(_pretty(item) if pretty else json.dumps(item), flush=True)
    except KeyboardInterrupt:
        return 0
    return 0


def _invocations(answer: HTTPResponse | HTTPError) -> Iterator[dict[str, Any]]:
    """Read the traces of a stream of Server-Sent Events."""
    for name, data in server_events(answer):
        if name == "invocation":
            yield json.loads(data)
        elif name == "dropped":
            complain(f"edgesim: {data} invocations were not shown: this reader is too slow")
        else:
            exit_if_nobody_reads()


def _is_wanted(item: dict[str, Any], arguments: argparse.Namespace) -> bool:
    outcome = item["outcome"] if item["outcome"] in {"ok", "canceled"} else "error"
    if arguments.status and outcome not in arguments.status:
        return False
    request = (item["event"] or {}).get("request") or {}
    if arguments.method and request.get("method") not in arguments.method:
        return False
    return arguments.search is None or arguments.search in "\n".join(texts(item))


def texts(item: dict[str, Any]) -> Iterator[str]:
    """The console lines of a trace, then its exceptions."""
    for entry in item["logs"]:
        yield " ".join(
            part if isinstance(part, str) else json.dumps(part) for part in entry["message"]
        )
    for exception in item["exceptions"]:
        yield f"{exception['name']}: {exception['message']}"


def _pretty(item: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(item["eventTimestamp"] / 1000).astimezone()
    lines = [f"{at:%H:%M:%S} {item['scriptName']} {happened(item)} - {item['outcome']}"]
    lines += [
        f"  ({entry['level']}) {_indented(text)}"
        for entry, text in zip(item["logs"], texts(item), strict=False)
    ]
    lines += [
        f"  ✘ {_indented(exception['name'])}: {_indented(exception['message'])}"
        for exception in item["exceptions"]
    ]
    return printable("\n".join(lines))


def _indented(text: str) -> str:
    """Indent further lines, so that none can be mistaken for an invocation."""
    return text.replace("\n", "\n    ")


def happened(item: dict[str, Any]) -> str:
    """The event of a trace, in a few words."""
    event = item["event"] or {}
    if "request" in event:
        status = event.get("response", {}).get("status", "")
        return f"{event['request']['method']} {event['request']['url']} {status}".rstrip()
    if "queue" in event:
        return f"queue {event['queue']} ({event['batchSize']} messages)"
    if "cron" in event:
        return f"scheduled {event['cron']!r}"
    if "rpcMethod" in event:
        return f"rpc {event['rpcMethod']}"
    return f"tail ({len(event.get('consumedEvents', []))} traces)"

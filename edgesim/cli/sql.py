"""edgesim sql: run a ClickHouse statement.

Uses the running project if there is one, or else the state directory.
"""

from __future__ import annotations

import argparse
import sys
from urllib.parse import quote

import anyio

from edgesim.cli import logs
from edgesim.cli.arguments import add_project, project_of
from edgesim.cli.running import ask, opened, serving
from edgesim.cli.terminal import printable
from edgesim.config import Project
from edgesim.errors import RunError
from edgesim.model import HttpRequest, read_all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim sql``."""
    parser.add_argument("query", help="SQL statement; - reads it from standard input")
    add_project(parser)
    parser.add_argument(
        "--format",
        help="ClickHouse output format (default: PrettyCompact on a terminal, else TabSeparated)",
        metavar="NAME",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the query result; RunError if ClickHouse replies with an error."""
    logs.configure(verbose=False)
    project = project_of(arguments)
    query = sys.stdin.read() if arguments.query == "-" else arguments.query
    wanted = arguments.format or ("PrettyCompact" if sys.stdout.isatty() else "TabSeparated")
    owner = serving(project)
    if owner is not None:
        with ask(owner, f"/sql?format={quote(wanted)}", query.encode()) as answer:
            status, body = answer.status, answer.read()
    else:
        status, body = anyio.run(_ask_state, project, query, wanted)
    if status != 200:
        raise RunError(body.decode("utf-8", "replace").strip())
    if sys.stdout.isatty():  # rows may hold what clients sent
        sys.stdout.write(printable(body.decode("utf-8", "replace")))
    else:
        sys.stdout.buffer.write(body)
    sys.stdout.flush()
    return 0


async def _ask_state(project: Project, query: str, wanted: str) -> tuple[int, bytes]:
    async with opened(project) as simulator:
        url = f"http://clickhouse/?default_format={quote(wanted)}"
        answer = await simulator.primitives.clickhouse(HttpRequest("POST", url, [], query.encode()))
        return answer.status, await read_all(answer.body)

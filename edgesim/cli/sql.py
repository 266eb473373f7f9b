"""edgesim sql: ask ClickHouse, through the running project if there is one."""

from __future__ import annotations

import argparse
import sys
import urllib.error
import urllib.request
from urllib.parse import quote

import anyio

from edgesim.cli import logs
from edgesim.cli.arguments import add_project, project_of
from edgesim.config import Environment, Project
from edgesim.dev.presence import Owner, find_owner, own
from edgesim.errors import RunError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim sql``."""
    parser.add_argument("query", help="the statement; - reads it from standard input")
    add_project(parser)
    parser.add_argument(
        "--format",
        help="ClickHouse output format (default: PrettyCompact on a terminal, else TabSeparated)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the answer."""
    logs.configure(verbose=False)
    project = project_of(arguments)
    query = sys.stdin.read() if arguments.query == "-" else arguments.query
    wanted = arguments.format or ("PrettyCompact" if sys.stdout.isatty() else "TabSeparated")
    owner = find_owner(project.state)
    if owner is not None and owner.url is not None:
        status, body = _ask_running(owner, query, wanted)
    else:
        status, body = anyio.run(_ask_state, project, query, wanted)
    if status != 200:
        raise RunError(body.decode("utf-8", "replace").strip())
    sys.stdout.buffer.write(body)
    sys.stdout.flush()
    return 0


def _ask_running(owner: Owner, query: str, wanted: str) -> tuple[int, bytes]:
    url = f"{owner.url}/cdn-cgi/edgesim/sql?format={quote(wanted)}"
    headers = {"Authorization": f"Bearer {owner.token}"} if owner.token else {}
    request = urllib.request.Request(url, query.encode(), headers)  # noqa: S310 (our own server)
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        raise RunError(f"the project that runs at {owner.url} does not answer: {error}") from error


async def _ask_state(project: Project, query: str, wanted: str) -> tuple[int, bytes]:
    from edgesim.backends import open_backends
    from edgesim.clock import Clock
    from edgesim.model import HttpRequest, read_all

    with own(project.state):
        async with open_backends(project, Environment.read(), Clock()) as backends:
            url = f"http://clickhouse/?default_format={quote(wanted)}"
            answer = await backends.gateway.fetch(HttpRequest("POST", url, [], query.encode()))
            return answer.status, await read_all(answer.body)

"""edgesim dev: run the project, reload it on save."""

from __future__ import annotations

import argparse
from pathlib import Path

import anyio

from edgesim.cli import logs
from edgesim.cli.arguments import add_isolation, add_project, project_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim dev``."""
    add_project(parser, positional=True)
    add_isolation(parser)
    parser.add_argument("--port", type=int, default=8787, help="0 picks a free one (default: 8787)")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default: loopback)")
    parser.add_argument("--no-reload", action="store_true", help="do not watch files")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="write the requests as a fixture (.gz too)"
    )
    parser.add_argument("--quiet", action="store_true", help="log only warnings and errors")


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped."""
    from edgesim.config import Environment
    from edgesim.dev.server import DevServer, Options

    logs.configure(verbose=not arguments.quiet)
    options = Options(arguments.host, arguments.port, not arguments.no_reload, arguments.record)
    server = DevServer(lambda: project_of(arguments), options, Environment.read())
    anyio.run(server.run, _ready, _ready_clickhouse, backend_options={"use_uvloop": True})
    return 0


def _ready(url: str) -> None:
    print(f"Ready on {url}", flush=True)


def _ready_clickhouse(url: str) -> None:
    print(f"ClickHouse on {url}", flush=True)

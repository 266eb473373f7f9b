"""edgesim dev: run the project and reload it when a file is saved.

Prints "Ready on http://..." when it serves requests. Stop it with Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import anyio

from edgesim.cli import logs
from edgesim.cli.arguments import (
    add_address,
    add_inspect,
    add_isolation,
    add_project,
    project_of,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim dev``."""
    add_project(parser, positional=True)
    add_isolation(parser)
    add_address(parser)
    parser.add_argument(
        "--no-reload", action="store_true", help="do not reload when a file is saved"
    )
    add_inspect(parser)
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="record the requests as a fixture for replay (NDJSON; FILE.gz is compressed)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped by a signal."""
    from edgesim.config import Environment
    from edgesim.dev.server import Server, ServerOptions

    logs.configure(verbose=not arguments.quiet, service=True)
    options = ServerOptions(
        arguments.host,
        arguments.port,
        not arguments.no_reload,
        arguments.record,
        inspect=arguments.inspect,
        s3_port=arguments.s3_port,
    )
    if not arguments.quiet:
        for line in project_of(arguments).defaults:
            print(line, file=sys.stderr)
    server = Server(lambda: project_of(arguments), options, Environment.read())
    ready = (say_ready, say_ready_port)
    anyio.run(server.run, *ready, backend_options={"use_uvloop": True})
    return 0


def say_ready(url: str) -> None:
    """Print the line that scripts wait for."""
    print(f"Ready on {url}", flush=True)


def say_ready_port(name: str, url: str) -> None:
    """Print the address of a further port that the project may configure: ClickHouse, S3."""
    print(f"{name} on {url}", flush=True)

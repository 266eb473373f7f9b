"""edgesim serve: run the project in production.

Differs from dev: isolation level warm, JSON logs, no reload, and a drain at SIGTERM.
"""

from __future__ import annotations

import argparse
import math

import anyio

from edgesim.cli import logs
from edgesim.cli.arguments import add_address, add_isolation, add_project, project_of
from edgesim.cli.dev import say_ready, say_ready_port

DRAIN_SECONDS = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim serve``."""
    add_project(parser, positional=True)
    add_isolation(parser)
    add_address(parser)
    parser.add_argument(
        "--drain-seconds",
        type=_seconds,
        default=DRAIN_SECONDS,
        metavar="S",
        help="at SIGTERM: seconds to write and deliver pending work (default: 30)",
    )
    parser.add_argument(
        "--notice-seconds",
        type=_seconds,
        default=0.0,
        metavar="S",
        help="at SIGTERM: seconds to serve on while `ready` replies 503 (default: 0)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped by a signal."""
    from edgesim.config import Environment
    from edgesim.dev.server import Server, ServerOptions

    logs.configure(verbose=not arguments.quiet, json=True, service=True)
    options = ServerOptions(
        arguments.host,
        arguments.port,
        reload=False,
        strict=True,
        drain_seconds=arguments.drain_seconds,
        notice_seconds=arguments.notice_seconds,
        s3_port=arguments.s3_port,
    )
    server = Server(lambda: project_of(arguments, level="warm"), options, Environment.read())
    ready = (say_ready, say_ready_port)
    anyio.run(server.run, *ready, backend_options={"use_uvloop": True})
    return 0


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds

"""edgesim mcp: serve the running project to an editor or agent, by the Model Context Protocol.

The program that starts this command talks to it on standard input and output. Its tools send an
event, trace it, wait for a row, list the flows, explain the last failure and run SQL. The project
may start, stop and start again meanwhile. Needs: pip install 'edgesim[mcp]'.
"""

from __future__ import annotations

import argparse
import os
import signal

import anyio

from edgesim.cli import logs
from edgesim.cli.arguments import add_project, project_of
from edgesim.errors import UsageError

_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim mcp``."""
    add_project(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until the client closes standard input."""
    logs.configure(verbose=False)
    project_of(arguments)  # a wrong argument ends the command, not every call of a tool
    try:
        from edgesim.cli.mcp.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"mcp", "mcp_types"}:
            raise
        raise UsageError(
            "edgesim mcp needs the package 'mcp'",
            "install it with: pip install 'edgesim[mcp]'",
        ) from error
    # A thread waits for the next line of standard input, and would hold the exit up.
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    anyio.run(serve, lambda: project_of(arguments))
    return 0

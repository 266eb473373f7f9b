"""edgesim doctor: check this machine, the Workers and every backend.

Prints one line per check: ok, warning or problem, and how to fix it. Exits with 1 if there is a
problem.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext

import anyio
import msgspec

from edgesim import doctor
from edgesim.cli import logs
from edgesim.cli.arguments import add_isolation, add_project, project_of
from edgesim.cli.running import serving
from edgesim.clock import Clock
from edgesim.config import Environment, Project
from edgesim.dev.presence import own
from edgesim.model import Diagnosis

_COLOURS = {"ok": 32, "warning": 33, "problem": 31}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim doctor``."""
    add_project(parser, positional=True)
    add_isolation(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Print one line per check; return 1 if there is a problem."""
    logs.configure(verbose=False)
    findings = anyio.run(_examine, project_of(arguments), not arguments.json)
    healthy = all(finding.status != "problem" for finding in findings)
    if arguments.json:
        print(msgspec.json.encode({"healthy": healthy, "checks": findings}).decode())
    return 0 if healthy else 1


async def _examine(project: Project, shown: bool) -> list[Diagnosis]:
    running = serving(project) is not None
    found = []
    with nullcontext() if running else own(project.state, project.state_name):
        async for finding in doctor.examine(project, Environment.read(), Clock(), running=running):
            found.append(finding)
            if shown:
                print(_line(finding), flush=True)
    return found


def _line(finding: Diagnosis) -> str:
    status = f"{finding.status:8}"
    if sys.stdout.isatty():
        status = f"\x1b[{_COLOURS[finding.status]}m{status}\x1b[0m"
    cure = f"; cure: {finding.cure}" if finding.cure else ""
    return f"{status} {finding.check}: {finding.said}{cure}"

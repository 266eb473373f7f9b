"""edgesim replay: run fixtures through the project and compare what came of them."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from functools import partial
from pathlib import Path

import anyio

from edgesim.cli import logs
from edgesim.cli.arguments import add_isolation, add_project, project_of
from edgesim.dev.presence import own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim replay``."""
    parser.add_argument("fixtures", nargs="+", type=Path, metavar="FIXTURE", help="NDJSON, .gz too")
    add_project(parser)
    add_isolation(parser)
    parser.add_argument("--seed", type=int, help="repeat the same ids and jitter")
    parser.add_argument("--expect", type=Path, metavar="FILE", help="what it must come to (TOML)")
    parser.add_argument("--report", choices=("text", "json", "junit"), default="text")
    parser.add_argument("--verbose", action="store_true", help="log every invocation")


def run(arguments: argparse.Namespace) -> int:
    """Replay, on a state of its own unless one is named; 1 if it is not as expected."""
    from edgesim.replay import expectations, report, runner

    logs.configure(verbose=arguments.verbose)
    expected = expectations.read(arguments.expect) if arguments.expect else None
    with contextlib.ExitStack() as stack:
        fresh = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgesim-replay-"))
        project = project_of(arguments, state=Path(fresh))
        stack.enter_context(own(project.state))
        run_it = partial(
            runner.replay, project, arguments.fixtures, expected, arguments.seed, _progress
        )
        result = anyio.run(run_it, backend_options={"use_uvloop": True})
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(report.FORMATS[arguments.report](result))
    return 0 if result.ok else 1


def _progress(answered: int) -> None:
    if sys.stderr.isatty() and answered % 100 == 0:
        print(f"\r{answered} answered", end="", file=sys.stderr, flush=True)

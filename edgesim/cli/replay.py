"""edgesim replay: run fixtures through the project in virtual time.

The same fixture, project, seed and faults give the same report on any machine. Exits with 1 if an
expectation or a checker fails.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgesim.cli import logs
from edgesim.cli.arguments import add_isolation, add_project, project_of
from edgesim.cli.progress import Progress
from edgesim.dev.presence import own
from edgesim.errors import UsageError
from edgesim.scratch import scratch_folder

if TYPE_CHECKING:
    from edgesim.replay.runner import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim replay``."""
    parser.add_argument(
        "fixtures",
        nargs="+",
        type=Path,
        metavar="FIXTURE",
        help="recorded requests, NDJSON (.gz is decompressed)",
    )
    add_project(parser)
    add_isolation(parser)
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of task order, ids, jitter and faults (default: 0)",
    )
    parser.add_argument("--expect", type=Path, metavar="FILE", help="expected results (TOML)")
    parser.add_argument(
        "--report",
        choices=("text", "json", "junit"),
        default="text",
        help="format of the report on standard output (default: text)",
    )
    parser.add_argument(
        "--junit", type=Path, metavar="FILE", help="also write a JUnit report to FILE"
    )
    parser.add_argument(
        "--faults",
        metavar="SPEC",
        help="faults to inject: rules separated by semicolons, or a file of rules",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="run the checkers, which otherwise run only with --faults",
    )
    parser.add_argument(
        "--speed",
        choices=("virtual", "realtime"),
        default="virtual",
        help="realtime waits for the times of the fixture and takes any backend (default: virtual)",
    )
    parser.add_argument(
        "--start",
        metavar="TIME",
        help="start of the virtual clock (ISO 8601, UTC; default: 2030-01-01)",
    )
    parser.add_argument(
        "--journal", type=Path, metavar="FILE", help="write every step of the event loop to FILE"
    )
    parser.add_argument(
        "--shrink",
        type=Path,
        metavar="FOLDER",
        help="reduce a failing fixture and its faults to a minimal case in FOLDER",
    )
    parser.add_argument("--verbose", action="store_true", help="log every invocation")


def run(arguments: argparse.Namespace) -> int:
    """Replay on a temporary state unless one is named; return 1 if an expectation fails."""
    from edgesim import faults
    from edgesim.replay import expectations, fixture, report, runner
    from edgesim.replay.targets import targets_of

    logs.configure(verbose=arguments.verbose)
    expected = expectations.read(arguments.expect) if arguments.expect else None
    start = fixture.unix_time(arguments.start, "--start") if arguments.start else None
    if arguments.junit:
        _create(arguments.junit)
    with contextlib.ExitStack() as stack:
        fresh = stack.enter_context(scratch_folder("replay"))
        project = project_of(arguments, state=fresh)
        stack.enter_context(own(project.state))
        plan = runner.Plan(
            project,
            arguments.fixtures,
            arguments.seed,
            start,
            faults.read(arguments.faults, targets_of(project)) if arguments.faults else (),
            expected,
            check=arguments.check,
            realtime=arguments.speed == "realtime",
        )
        if arguments.journal:
            plan.journal = stack.enter_context(arguments.journal.open("w"))
        if arguments.shrink:
            return _shrink(plan, arguments)
        with Progress(sys.stderr) as progress:
            result = runner.replay(plan, progress.show)
            progress.end(result.requests)
    junit = report.junit(result, "+".join(path.stem for path in arguments.fixtures))
    if arguments.junit:
        arguments.junit.write_text(junit, "utf-8")
    print(junit if arguments.report == "junit" else report.FORMATS[arguments.report](result))
    return 0 if result.ok else 1


def _shrink(plan: Plan, arguments: argparse.Namespace) -> int:
    """Shrink the case, print the command that reproduces it, and return 1, since it fails."""
    import msgspec

    from edgesim.faults import FaultRule
    from edgesim.replay import report, runner, shrink
    from edgesim.replay.fixture import Fixture

    if arguments.state:
        raise UsageError("--shrink replays many times from nothing: leave --state out")
    folder: Path = arguments.shrink
    folder.mkdir(parents=True, exist_ok=True)
    lines = [line for path in plan.fixtures for line in Fixture(path).lines()]

    def run(fixture: Path, rules: Sequence[FaultRule]) -> runner.ReplayReport:
        with scratch_folder("shrink") as state:
            again = msgspec.structs.replace(plan, fixtures=[fixture], faults=rules)
            again.project = project_of(arguments, state=state)
            return runner.replay(again)

    def progress(tries: int, kept_lines: int, kept_rules: int) -> None:
        if sys.stderr.isatty():
            text = f"{tries} replays, {kept_lines} lines, {kept_rules} fault rules"
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)

    small = shrink.shrink(lines, plan.faults, folder, run, progress)
    (folder / "tried.ndjson").unlink()
    fixture, rules = folder / "fixture.ndjson", folder / "faults.txt"
    fixture.write_bytes(b"".join(line + b"\n" for line in small.lines))
    rules.write_text("".join(f"{rule.text}\n" for rule in small.rules))
    print(report.text(small.report))
    print(
        f"{len(small.lines)} of {len(lines)} lines and {len(small.rules)} of {len(plan.faults)} "
        f"fault rules are left after {small.tries} replays; repeat it with:\n"
        f"  edgesim replay {fixture} --faults {rules} --seed {plan.seed} "
        f"--project {plan.project.root} --check"
    )
    return 1


def _create(path: Path) -> None:
    """Create the file and its folder, so that a path that cannot be written fails at the start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a"):
        pass

"""edgesim replay: run fixtures through the project in virtual time, compare what came of them."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgesim.cli import logs
from edgesim.cli.arguments import add_isolation, add_project, project_of
from edgesim.dev.presence import own
from edgesim.errors import UsageError

if TYPE_CHECKING:
    from edgesim.replay.runner import Plan

BAR_WIDTH = 24
BAR_SECONDS = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim replay``."""
    parser.add_argument("fixtures", nargs="+", type=Path, metavar="FIXTURE", help="NDJSON, .gz too")
    add_project(parser)
    add_isolation(parser)
    parser.add_argument(
        "--seed", type=int, default=0, help="of order, ids, jitter and faults (default: 0)"
    )
    parser.add_argument("--expect", type=Path, metavar="FILE", help="what it must come to (TOML)")
    parser.add_argument("--report", choices=("text", "json", "junit"), default="text")
    parser.add_argument(
        "--faults", metavar="SPEC", help="what goes wrong: rules, or a file of them"
    )
    parser.add_argument("--check", action="store_true", help="run the checkers without faults too")
    parser.add_argument(
        "--speed",
        choices=("virtual", "realtime"),
        default="virtual",
        help="realtime waits for the fixture's times, and takes any backend",
    )
    parser.add_argument("--start", metavar="TIME", help="when the clock begins (ISO, UTC)")
    parser.add_argument(
        "--journal", type=Path, metavar="FILE", help="write every turn of the event loop down"
    )
    parser.add_argument(
        "--shrink",
        type=Path,
        metavar="FOLDER",
        help="reduce a failing fixture and its faults to a small case in FOLDER",
    )
    parser.add_argument("--verbose", action="store_true", help="log every invocation")


def run(arguments: argparse.Namespace) -> int:
    """Replay, on a state of its own unless one is named; 1 if it is not as expected."""
    from edgesim.replay import expectations, faults, fixture, report, runner
    from edgesim.replay.targets import targets_of

    logs.configure(verbose=arguments.verbose)
    expected = expectations.read(arguments.expect) if arguments.expect else None
    start = fixture.unix_time(arguments.start, "--start") if arguments.start else None
    with contextlib.ExitStack() as stack:
        fresh = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgesim-replay-"))
        project = project_of(arguments, state=Path(fresh))
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
        bar = _Bar()
        result = runner.replay(plan, bar.show if sys.stderr.isatty() else None)
        bar.end(result.requests)
    print(report.FORMATS[arguments.report](result))
    return 0 if result.ok else 1


def _shrink(plan: Plan, arguments: argparse.Namespace) -> int:
    """Leave the small case in the folder, and say how to repeat it; 1, since it fails."""
    import msgspec

    from edgesim.replay import report, runner, shrink
    from edgesim.replay.faults import Rule
    from edgesim.replay.fixture import Fixture

    if arguments.state:
        raise UsageError("--shrink replays many times from nothing: leave --state out")
    folder: Path = arguments.shrink
    folder.mkdir(parents=True, exist_ok=True)
    lines = [line for path in plan.fixtures for line in Fixture(path).lines()]

    def run(fixture: Path, rules: Sequence[Rule]) -> runner.Report:
        with tempfile.TemporaryDirectory(prefix="edgesim-shrink-") as state:
            again = msgspec.structs.replace(plan, fixtures=[fixture], faults=rules)
            again.project = project_of(arguments, state=Path(state))
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


class _Bar:
    """Progress on a terminal, at most ten times a second."""

    def __init__(self) -> None:
        self._began = self._shown = time.perf_counter()

    def show(self, answered: int, seconds: float, share: float) -> None:
        """A line that overwrites the last one."""
        now = time.perf_counter()
        if now - self._shown < BAR_SECONDS:
            return
        self._shown = now
        done = "#" * round(share * BAR_WIDTH)
        line = f"[{done:<{BAR_WIDTH}}] {answered} answered, {seconds:.0f} s of virtual time"
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    def end(self, requests: int) -> None:
        """How long it really took, which the report does not tell."""
        if sys.stderr.isatty():
            took = time.perf_counter() - self._began
            rate = requests / took
            print(f"\r{requests} requests in {took:.1f} s ({rate:.0f}/s)\x1b[K", file=sys.stderr)

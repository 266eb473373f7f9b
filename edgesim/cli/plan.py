"""edgesim plan: show what a change of streams, sinks and SQL means on Cloudflare.

Compares the project with the file that --applied wrote when it was last deployed. On Cloudflare
schemas, sinks and SQL cannot be changed: the plan names what would be deleted and created again,
and what would be lost. --out writes the script that does it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from edgesim.cli.arguments import PROJECT_HELP, add_files, find_project
from edgesim.config.flow_changes import AppliedFlow, applied_flow, changes
from edgesim.errors import ConfigError

APPLIED = "cloudflare.applied.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim plan``."""
    parser.add_argument("project", nargs="?", help=PROJECT_HELP)
    add_files(parser)
    parser.add_argument(
        "--file",
        type=Path,
        metavar="FILE",
        help=f"the applied state (default: {APPLIED} in the project folder)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write a script with the commands")
    parser.add_argument("--json", action="store_true", help="print the changes as JSON")
    parser.add_argument(
        "--applied", action="store_true", help="record the project as applied, after a deployment"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the changes, and write the script or the applied state."""
    from edgesim.cli.running import failing_sinks
    from edgesim.export.plan_script import plan_script

    project = find_project(arguments)
    file = arguments.file or project.root / APPLIED
    after = applied_flow(project.dataflow)
    if arguments.applied:
        text = msgspec.json.format(msgspec.json.encode(after))
        file.write_bytes(text + b"\n")
        print(f"{file}: the project is recorded as applied")
        return 0
    found = changes(_read(file), after)
    if arguments.json:
        print(msgspec.json.encode(found).decode())
    else:
        for change in found:
            print(change)
        if not found:
            print("nothing to change")
    for finding in failing_sinks(project):
        print(finding.problem, file=sys.stderr)
    if arguments.out is not None:
        arguments.out.write_text(plan_script(project, found), "utf-8")
        arguments.out.chmod(0o755)
    return 0


def _read(file: Path) -> AppliedFlow:
    """The applied state; an empty account if there is no file."""
    if not file.is_file():
        return AppliedFlow()
    try:
        return msgspec.json.decode(file.read_bytes(), type=AppliedFlow)
    except (msgspec.DecodeError, OSError) as error:
        problem = f"is no applied state ({error}); write it again with edgesim plan --applied"
        raise ConfigError(file, None, problem) from error

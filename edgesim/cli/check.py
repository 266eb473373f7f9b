"""edgesim check: report code and settings that would fail on Cloudflare.

Reads the configuration and every module that the Workers import, and imports each Worker once.
Statements of SQL pipelines are planned by the SQL engine. A running project is asked for its sinks
that cannot write.
Exits with 1 if it finds an error.
"""

from __future__ import annotations

import argparse
import sys

import anyio

from edgesim.cli.arguments import PROJECT_HELP, add_files, find_project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim check``."""
    parser.add_argument("project", nargs="?", help=PROJECT_HELP)
    add_files(parser)
    parser.add_argument(
        "--format",
        choices=("text", "github", "json"),
        default="text",
        help="output format; github: annotations of a workflow (default: text)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; return 1 if one of them is an error."""
    from edgesim.check import check_project
    from edgesim.check.findings import FORMATS
    from edgesim.cli.running import failing_sinks
    from edgesim.pipelines.iceberg.validation import check_tables
    from edgesim.pipelines.sql.validation import check_sql

    project = find_project(arguments)
    anyio.run(check_sql, project.dataflow, project.account.sql)
    anyio.run(check_tables, project.dataflow, project.account.sql, project.account.iceberg)
    findings = [*check_project(project), *failing_sinks(project)]
    shown = FORMATS[arguments.format](findings)
    if shown:
        print(shown)
    errors = sum(each.level == "error" for each in findings)
    if arguments.format == "text":
        rest = len(findings) - errors
        print(f"{errors} errors, {rest} warnings", file=sys.stderr)
    return 1 if errors else 0

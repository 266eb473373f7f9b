"""The ``edgesim`` command: each module parses its arguments, calls, prints.

Exit codes: 0 right, 1 an expectation failed, 2 usage or configuration, 3 the run itself broke.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from edgesim.cli import dev, queue, r2, replay, sql
from edgesim.errors import EdgesimError, first_error

COMMANDS = {"dev": dev, "replay": replay, "sql": sql, "r2": r2, "queue": queue}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = argparse.ArgumentParser(
        prog="edgesim", description="Run Cloudflare-style event pipelines for real on one machine."
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        summary = (module.__doc__ or "").splitlines()[0].partition(": ")[2]
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks"
        )
        module.add_arguments(command)
    arguments = parser.parse_args(argv)
    try:
        code: int = COMMANDS[arguments.command].run(arguments)
    except EdgesimError as error:
        return _fail(error, debug=arguments.debug)
    except BaseExceptionGroup as group:
        cause = first_error(group)
        if cause is None or arguments.debug:
            raise
        return _fail(cause, debug=False)
    except KeyboardInterrupt:
        return 130
    return code


def _fail(error: EdgesimError, *, debug: bool) -> int:
    if debug:
        raise error
    print(f"edgesim: {error}", file=sys.stderr)
    return error.exit_code

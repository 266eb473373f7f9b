"""The ``edgesim`` command. Each module of this package implements one subcommand.

``EXIT_CODES`` has the exit codes of all commands.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from edgesim.cli.arguments import sentence
from edgesim.cli.output import cannot_print, complain, end_if_nobody_reads, finish, open_descriptors
from edgesim.cli.parser import Parser, ShowVersion
from edgesim.errors import EdgesimError, RunError, UsageError, first_error

COMMANDS = {
    "init": "edgesim.cli.init",
    "dev": "edgesim.cli.dev",
    "serve": "edgesim.cli.serve",
    "replay": "edgesim.cli.replay",
    "check": "edgesim.cli.check",
    "export": "edgesim.cli.export",
    "plan": "edgesim.cli.plan",
    "pipelines": "edgesim.cli.pipelines",
    "tail": "edgesim.cli.tail",
    "tap": "edgesim.cli.tap",
    "invocations": "edgesim.cli.invocations",
    "trace": "edgesim.cli.trace",
    "mcp": "edgesim.cli.mcp",
    "sql": "edgesim.cli.sql",
    "r2": "edgesim.cli.r2",
    "queue": "edgesim.cli.queue",
    "kv": "edgesim.cli.kv",
    "cost": "edgesim.cli.cost",
    "doctor": "edgesim.cli.doctor",
    "completion": "edgesim.cli.completion",
}
"""Subcommand -> module, which defines ``add_arguments`` and ``run``."""
_FAILURES = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE}
"""Errors of file operations that another path does not fix."""
_FULL_BYTES = 1 << 16
"""Free bytes below which a file system is named as the full one."""
EXIT_CODES = (
    "Exit codes: 0 success, 1 a failed expectation or check, 2 a usage or configuration error, "
    "3 the run itself failed."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    A command whose output pipe is closed by the reader exits silently by SIGPIPE, like other Unix
    tools.
    """
    open_descriptors()
    try:
        return _run(argv)
    finally:
        finish()


def build_parser(names: Iterable[str] = COMMANDS) -> Parser:
    """Parser of ``edgesim`` with the named subcommands.

    The first line of a command's module docstring is its summary in ``edgesim --help``; the whole
    docstring is its description.
    """
    parser = Parser(
        prog="edgesim",
        description="Run a Cloudflare-style event pipeline on this machine.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    parser.add_argument("--version", action=ShowVersion, help="print the version")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in names:
        with _without_rich():
            module = import_module(COMMANDS[name])
        text = (module.__doc__ or "").partition(": ")[2].strip()
        command = commands.add_parser(
            name, help=text.partition("\n")[0].rstrip("."), description=sentence(text)
        )
        command.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="print the traceback of an error",
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


@contextmanager
def _without_rich() -> Iterator[None]:
    """Hide the package rich from imports in the block.

    structlog imports it where it is installed, which takes longer than the rest of structlog.
    edgesim formats its log lines without it; worker code can still import it later.
    """
    if "rich" in sys.modules:
        yield
        return
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["rich"]


def _run(argv: Sequence[str] | None) -> int:
    parser = build_parser(_needed(sys.argv[1:] if argv is None else argv))
    arguments = parser.parse(argv)
    try:
        code: int = arguments.run(arguments)
    except EdgesimError as error:
        return _fail(error, debug=arguments.debug)
    except BaseExceptionGroup as group:
        end_if_nobody_reads(_first(group))
        if arguments.debug:
            raise
        return _fail(first_error(group) or _unforeseen(_first(group), arguments), debug=False)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        end_if_nobody_reads(error)
        if isinstance(error, OSError) and cannot_print():
            return RunError.exit_code  # finish() prints why
        # Exit code 1 means a failed expectation. An unexpected exception would make Python exit
        # with 1.
        if arguments.debug:
            raise
        return _fail(_unforeseen(error, arguments), debug=False)
    return code


def _needed(words: Sequence[str]) -> Iterable[str]:
    """Commands to import: the one to run, or all of them for help and usage errors.

    Importing all of them takes longer than many commands run.
    """
    if "--version" in words[:1]:
        return []
    first = next((word for word in words if not word.startswith("-")), None)
    return [first] if first in COMMANDS else COMMANDS


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _unforeseen(error: BaseException, arguments: argparse.Namespace) -> EdgesimError:
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        return _unusable(error, Path(os.fsdecode(error.filename)), arguments)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return RunError(f"{error.strerror}: {_full_places(arguments)}", "free some space there")
    return RunError(f"{type(error).__name__}: {error} (--debug shows where)")


def _unusable(error: OSError, file: Path, arguments: argparse.Namespace) -> EdgesimError:
    """The error of a file operation: names the file, and the option that it was passed by."""
    option = ""
    for name, value in vars(arguments).items():
        if isinstance(value, Path) and _are_nested(file.absolute(), value.absolute()):
            option = arguments.parser.option_of(name)
    cause = "is not a folder" if error.errno == errno.EEXIST else error.strerror
    problem = f"{option}{file}: {cause}"
    if error.errno in _FAILURES:
        return RunError(problem)
    return UsageError(problem, "name another path, or change its permissions")


def _full_places(arguments: argparse.Namespace) -> str:
    """The paths of the arguments on full file systems; all paths if none of them is full now."""
    paths = [value for value in vars(arguments).values() if isinstance(value, Path)]
    paths.append(Path(tempfile.gettempdir()))
    full = [path for path in paths if shutil.disk_usage(_existing(path)).free < _FULL_BYTES]
    return ", ".join(map(str, full or paths))


def _existing(path: Path) -> Path:
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())


def _are_nested(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _fail(error: EdgesimError, *, debug: bool) -> int:
    if debug:
        raise error
    complain(f"edgesim: {error}")
    return error.exit_code

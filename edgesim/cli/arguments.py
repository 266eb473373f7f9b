"""Arguments shared by several commands, and the project that they select."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgesim.config import Environment, Project, load_project
from edgesim.config.project import DEFAULT, Overrides, find_root
from edgesim.errors import UsageError

LEVELS = ("process", "warm", "inline")


def add_project(parser: argparse.ArgumentParser, *, positional: bool = False) -> None:
    """Add the project folder, the state folder and the backend URLs."""
    where = "folder of edgesim.toml (default: . or ./workers)"
    if positional:
        parser.add_argument("project", nargs="?", help=where)
    else:
        parser.add_argument("--project", metavar="FOLDER", help=where)
    add_files(parser)
    parser.add_argument("--state", type=Path, metavar="DIR", help="state (default: .edgesim in it)")
    for name in ("r2", "queues", "clickhouse"):
        parser.add_argument(f"--{name}", metavar="URL", help=f"the {name} backend")


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add the wrangler files and the name of their environment."""
    parser.add_argument(
        "-c",
        "--config",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a wrangler file to use in place of edgesim.toml; repeatable, the first is the entry",
    )
    parser.add_argument("--env", metavar="NAME", help="environment: env.NAME of wrangler files")


def add_isolation(parser: argparse.ArgumentParser) -> None:
    """Add the isolation level of the Workers."""
    parser.add_argument(
        "--isolation",
        action="append",
        default=[],
        type=_level,
        metavar="[WORKER=]LEVEL",
        help=f"where handlers run: {', '.join(LEVELS)}; for one Worker: NAME=LEVEL, repeatable",
    )


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add the listening address and the log verbosity."""
    parser.add_argument("--port", type=int, default=8787, help="0 picks a free one (default: 8787)")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default: loopback)")
    parser.add_argument("--quiet", action="store_true", help="log only warnings and errors")


def _level(text: str) -> tuple[str, str]:
    worker, equals, level = text.rpartition("=")
    if level not in LEVELS:
        raise argparse.ArgumentTypeError(f"{level!r} is none of {', '.join(LEVELS)}")
    return (worker if equals else DEFAULT), level


def find_project(arguments: argparse.Namespace) -> Project:
    """Load the project for a command that uses neither state nor backends."""
    overrides = Overrides(configs=arguments.config, environment=arguments.env)
    return load_project(_root(arguments), overrides, Environment.read())


def _root(arguments: argparse.Namespace) -> Path:
    """The project's folder, or that of the first wrangler file if files are passed (-c)."""
    if not arguments.config:
        return find_root(arguments.project)
    if arguments.project is not None:
        raise UsageError("name the project's folder or wrangler files (-c), not both")
    for file in arguments.config:
        if not file.is_file():
            raise UsageError(f"there is no file {file}; -c takes a wrangler file")
    return Path(arguments.config[0]).resolve().parent


def project_of(
    arguments: argparse.Namespace, *, state: Path | None = None, level: str = "process"
) -> Project:
    """Load the project that the arguments select.

    Flags override environment variables, which override files. ``level`` is the default isolation
    level, used if neither flags nor files set one.
    """
    return load_project(
        _root(arguments),
        Overrides(
            configs=arguments.config,
            state=arguments.state or state,
            environment=arguments.env,
            isolation=dict(getattr(arguments, "isolation", [])),
            isolation_default=level,
            r2=arguments.r2,
            queues=arguments.queues,
            clickhouse=arguments.clickhouse,
        ),
        Environment.read(),
    )

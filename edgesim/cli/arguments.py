"""Arguments shared by several commands, and the project that they select."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgesim.config import Environment, Project, load_project
from edgesim.config.files import is_file
from edgesim.config.loading import find_root
from edgesim.config.project import DEFAULT, Overrides
from edgesim.errors import UsageError

LEVELS = ("process", "warm", "inline")
INSPECTOR_PORT = 9229
PROJECT_HELP = "folder with edgesim.toml or a wrangler file (default: . or ./workers)"


_BACKENDS = {
    "r2": "memory:, file:PATH or s3://HOST:PORT",
    "queues": "memory:, sqlite:PATH or nats://HOST:PORT/NAME",
    "kv": "memory:, sqlite:PATH or nats://HOST:PORT/NAME",
    "clickhouse": "chdb:PATH, clickhouse+http://HOST:PORT/DB or clickhouse://HOST:PORT/DB",
}


def add_project(parser: argparse.ArgumentParser, *, positional: bool = False) -> None:
    """Add the project folder, the state folder and the backend URLs."""
    where = PROJECT_HELP
    if positional:
        parser.add_argument("project", nargs="?", help=where)
    else:
        parser.add_argument("--project", metavar="FOLDER", help=where)
    add_files(parser)
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="state directory: logs and embedded stores (default: .edgesim in the project folder)",
    )
    for name, schemes in _BACKENDS.items():
        parser.add_argument(
            f"--{name}", metavar="URL", help=f"{name} backend, {schemes} (default: [backends])"
        )


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add the wrangler files and the name of their environment."""
    parser.add_argument(
        "-c",
        "--config",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="wrangler file, instead of edgesim.toml; repeatable, the first is the entry Worker",
    )
    parser.add_argument(
        "--env",
        metavar="NAME",
        help="environment: use env.NAME of the wrangler files (default: top level)",
    )


def add_isolation(parser: argparse.ArgumentParser) -> None:
    """Add the isolation level of the Workers."""
    parser.add_argument(
        "--isolation",
        action="append",
        default=[],
        type=_level,
        metavar="[WORKER=]LEVEL",
        help=f"isolation level of all Workers or of one: {', '.join(LEVELS)}; repeatable",
    )


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add the listening address and the log verbosity."""
    parser.add_argument(
        "--port", type=_port, default=8787, help="TCP port, 0 for a free one (default: 8787)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--s3-port",
        type=_port,
        metavar="PORT",
        help="also serve the S3 API on this port, 0 for a free one (default: [server] s3_port)",
    )
    parser.add_argument("--quiet", action="store_true", help="log warnings and errors only")


def sentence(text: str) -> str:
    """``text`` with its first letter in upper case, and all others as they are."""
    return text[:1].upper() + text[1:]


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a number from 0 to 65535")
    return port


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """Add the port of the debugger."""
    parser.add_argument(
        "--inspect",
        nargs="?",
        type=_port,
        const=INSPECTOR_PORT,
        metavar="PORT",
        help="serve workerd's debugger of JavaScript Workers, which run at warm then "
        f"(default port: {INSPECTOR_PORT}; 0 for a free one)",
    )


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
        if not is_file(file):
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
            kv=arguments.kv,
            clickhouse=arguments.clickhouse,
            inspect=getattr(arguments, "inspect", None) is not None,
        ),
        Environment.read(),
    )

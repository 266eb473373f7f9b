"""edgesim kv: list, read, write and remove entries of KV namespaces.

Uses the running project if there is one, or else the state directory.  A namespace is named by its
id, or by the name of a binding to it.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from pathlib import Path

from edgesim.cli import logs
from edgesim.cli.arguments import add_project, project_of, sentence
from edgesim.cli.operate import given, perform, show
from edgesim.errors import UsageError

_OPERATIONS = {
    "ls": ("namespace", "prefix"),
    "get": ("namespace", "key"),
    "put": ("namespace", "key", "ttl", "expiration"),
    "rm": ("namespace", "key"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim kv``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    helps = {
        "ls": "list the keys of a namespace, or the namespaces",
        "get": "write a value to standard output or to a file",
        "put": "store a value: text, or the content of a file",
        "rm": "remove a key",
    }
    for name, summary in helps.items():
        action = actions.add_parser(name, help=summary, description=sentence(summary))
        if name == "ls":
            action.add_argument("namespace", nargs="?", help="id, or the name of a binding")
            action.add_argument("--prefix", help="only keys that begin with PREFIX")
            action.add_argument("--json", action="store_true", help="print a JSON list")
        else:
            action.add_argument("namespace", help="id, or the name of a binding")
            action.add_argument("key", help="key of the entry")
        if name == "get":
            action.add_argument(
                "--out", type=Path, metavar="FILE", help="file (default: standard output)"
            )
        if name == "put":
            _add_value(action)
        add_project(action)


def _add_value(action: argparse.ArgumentParser) -> None:
    action.add_argument("value", nargs="?", help="value, as text")
    action.add_argument("--path", type=Path, metavar="FILE", help="file with the value")
    action.add_argument(
        "--ttl", type=int, metavar="SECONDS", help="time until the entry expires, at least 60"
    )
    action.add_argument(
        "--expiration", type=int, metavar="TIME", help="Unix time at which the entry expires"
    )
    action.add_argument("--metadata", metavar="JSON", help="metadata of the entry")


def run(arguments: argparse.Namespace) -> int:
    """Run the operation and print its result."""
    logs.configure(verbose=False)
    action = arguments.action
    if action == "ls" and arguments.namespace is None and arguments.prefix is not None:
        raise UsageError("--prefix selects keys", "name a namespace")
    values = given(arguments, *_OPERATIONS[action])
    if action == "put":
        values["value"] = base64.b64encode(_value(arguments)).decode()
        if arguments.metadata is not None:
            values["metadata"] = _metadata(arguments.metadata)
    result = perform(project_of(arguments), f"kv.{action}", values)
    if action == "get":
        _write(base64.b64decode(result["value"]), arguments.out)
    else:
        show(result, as_json=getattr(arguments, "json", False))
    return 0


def _value(arguments: argparse.Namespace) -> bytes:
    if (arguments.value is None) == (arguments.path is None):
        raise UsageError("name one value", "write it after the key, or its file with --path")
    if arguments.path is None:
        return str(arguments.value).encode("utf-8", "surrogateescape")
    try:
        return bytes(arguments.path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {arguments.path}: {error.strerror}") from error


def _metadata(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--metadata is not JSON: {error}") from error


def _write(value: bytes, out: Path | None) -> None:
    if out is None:
        sys.stdout.buffer.write(value)
        sys.stdout.flush()
        return
    try:
        out.write_bytes(value)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from error

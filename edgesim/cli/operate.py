"""Operations on stores, shared by the ``queue``, ``r2`` and ``kv`` commands."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import anyio

from edgesim.cli.running import ask, opened, pieces, serving
from edgesim.cli.terminal import printable
from edgesim.config import Project
from edgesim.errors import RunError, UsageError


def perform(project: Project, name: str, arguments: dict[str, Any]) -> Any:
    """Run an operation, in the running project or else on its state, and return the result.

    UsageError if the running project replies with status 400, RunError for other error statuses.
    """
    owner = serving(project)
    if owner is None:
        return anyio.run(_on_state, project, name, arguments)
    request = json.dumps({"operation": name, "arguments": arguments}).encode()
    with ask(owner, "/operations", request) as answer:
        text = b"".join(pieces(answer)).decode()
        if answer.status == 400:
            raise UsageError(text.strip())
        if answer.status != 200:
            raise RunError(text.strip())
        return json.loads(text)


async def _on_state(project: Project, name: str, arguments: dict[str, Any]) -> Any:
    from edgesim import operations

    async with opened(project) as simulator:
        result = await operations.perform(simulator, name, arguments)
        return await result.all() if isinstance(result, operations.PagedRows) else result


def show(result: Any, *, as_json: bool = False) -> None:
    """Print a list as rows of tab-separated fields, a single result as "key value" pairs.

    On a terminal a list is a table with column heads.
    """
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    elif not isinstance(result, list):
        print(", ".join(f"{key} {_field(value)}" for key, value in result.items()))
    elif sys.stdout.isatty():
        _show_table(result)
    else:
        for row in result:
            print("\t".join(map(_field, row.values())))
    sys.stdout.flush()


def _show_table(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("none")
        return
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
        print("  ".join(padded).rstrip())


def _cell(value: Any) -> str:
    """A field in one line, so that no key or body looks like another row."""
    return printable(_field(value)).replace("\n", "\\n")


def _field(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Arguments of an operation that are set on the command line."""
    return {
        name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None
    }

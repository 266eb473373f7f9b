"""Operations on queues and buckets, shared by the ``queue`` and ``r2`` commands."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import anyio

from edgesim.cli.running import ask, opened, pieces, serving
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


def show(result: Any) -> None:
    """Print a list as rows of tab-separated fields, a single result as "key value" pairs."""
    rows = result if isinstance(result, list) else [result]
    for row in rows:
        fields = [value if isinstance(value, str) else json.dumps(value) for value in row.values()]
        if isinstance(result, list):
            print("\t".join(fields))
        else:
            print(", ".join(f"{key} {value}" for key, value in zip(row, fields, strict=True)))
    sys.stdout.flush()


def given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Arguments of an operation that are set on the command line."""
    return {
        name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None
    }

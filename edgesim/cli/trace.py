"""edgesim trace: find an event: every stage of the pipeline that holds it, in order, with times.

Searches recent requests and logs of the running project, traces that wait for a Tail Worker,
pipeline logs, objects, queues and tables for a text, for example an id. Limits apply to each store;
what they leave out is listed. Without a running project, searches the state directory.
Exits with 1 if the text is found nowhere.
"""

from __future__ import annotations

import argparse
import json
from typing import Any
from urllib.parse import quote

import anyio
import msgspec

from edgesim.cli import logs
from edgesim.cli.arguments import add_project, project_of
from edgesim.cli.running import ask, opened, pieces, serving
from edgesim.cli.terminal import printable
from edgesim.config import Project
from edgesim.errors import RunError, UsageError

NOT_FOUND = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim trace``."""
    parser.add_argument("text", help="text to search for, for example an id; case matters")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    add_project(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the places that hold the text; 1 if there is none."""
    logs.configure(verbose=False)
    found = _found(project_of(arguments), arguments.text)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        for sighting in found:
            print(_line(sighting))
    held = [each for each in found if each["stage"] != "not searched"]
    if not held and not arguments.json:
        print(f"{arguments.text!r} is nowhere in this project")
    return 0 if held else NOT_FOUND


def _found(project: Project, text: str) -> list[dict[str, Any]]:
    owner = serving(project)
    if owner is None:
        return anyio.run(_in_state, project, text)
    with ask(owner, f"/trace?q={quote(text, safe='')}", method="GET") as answer:
        body = b"".join(pieces(answer)).decode()
        if answer.status == 400:
            raise UsageError(body.strip())
        if answer.status != 200:
            raise RunError(body.strip())
        found: list[dict[str, Any]] = json.loads(body)
        return found


async def _in_state(project: Project, text: str) -> list[dict[str, Any]]:
    from edgesim.observation.locate import locate

    async with opened(project) as simulator:
        return [msgspec.to_builtins(each) async for each in locate(simulator, [], text)]


def _line(sighting: dict[str, Any]) -> str:
    detail = "  ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in sighting["detail"].items()
    )
    at = sighting["at"] or "-"
    line = printable(f"{sighting['stage']:<9} {at:<24} {sighting['place']}  {detail}".rstrip())
    return line.replace("\n", "\n    ")  # further lines cannot be mistaken for another place

"""edgesim invocations: list recent invocations, send one again, or record a fixture of some.

`again` sends the request, batch or message to the code as saved now, and compares the outcomes;
the handler's effects are real. It exits with 1 if the outcome differs. `fixture` writes the listed
requests, without secrets, for `edgesim replay`. The running project keeps the last 10,000
invocations, and up to 32 MB of their events.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from edgesim.cli import logs
from edgesim.cli.arguments import add_project, project_of, sentence
from edgesim.cli.operate import show
from edgesim.cli.output import complain
from edgesim.cli.running import ask, pieces, serving
from edgesim.cli.tail import happened
from edgesim.cli.terminal import printable
from edgesim.dev.presence import Owner
from edgesim.errors import RunError, UsageError
from edgesim.observation.sighting import iso

DIFFERS = 1
_HELPS = {
    "ls": "list invocations, newest first",
    "show": "print one invocation with its event, as JSON",
    "again": "send one again, and compare the outcomes",
    "fixture": "write the listed requests as a fixture for replay",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim invocations``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, summary in _HELPS.items():
        action = actions.add_parser(name, help=summary, description=sentence(summary))
        if name in {"show", "again"}:
            action.add_argument("id", help="id of the invocation, from ls")
        else:
            action.add_argument("worker", nargs="?", help="name of a Worker (default: all)")
            action.add_argument("--status", choices=("ok", "failed"), help="outcome")
            action.add_argument("--search", metavar="TEXT", help="text in it")
            action.add_argument(
                "--limit", type=int, default=100, metavar="N", help="most to list (default: 100)"
            )
        if name == "again":
            action.add_argument("--message", metavar="ID", help="send this message of a batch only")
        if name in {"ls", "again"}:
            action.add_argument("--json", action="store_true", help="print JSON")
        if name == "fixture":
            action.add_argument(
                "--output", type=Path, required=True, metavar="FILE", help="file to write (NDJSON)"
            )
        add_project(action)


def run(arguments: argparse.Namespace) -> int:
    """Run the action; UsageError if no project runs."""
    logs.configure(verbose=False)
    project = project_of(arguments)
    owner = serving(project)
    if owner is None:
        raise UsageError(f"no project runs on {project.state}; start it with `edgesim dev`")
    if arguments.action == "ls":
        _print_list(_listed(owner, arguments), as_json=arguments.json)
    elif arguments.action == "show":
        detail = _asked(owner, f"/invocation?{urlencode({'id': arguments.id})}", method="GET")
        print(json.dumps(detail, indent=2, ensure_ascii=False))
    elif arguments.action == "again":
        return _again(owner, arguments)
    else:
        _write_fixture(owner, arguments)
    return 0


def _listed(owner: Owner, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    query = {
        "worker": arguments.worker or "",
        "text": arguments.search or "",
        "status": arguments.status or "all",
        "limit": arguments.limit,
    }
    found: list[dict[str, Any]] = _asked(owner, f"/invocations?{urlencode(query)}", method="GET")[
        "invocations"
    ]
    return found


def _print_list(found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    rows = [
        {
            "id": each["id"],
            "at": iso(each["eventTimestamp"]),
            "worker": each["scriptName"],
            "outcome": each["outcome"],
            "event": happened(each),
        }
        for each in found
    ]
    show(rows)


def _again(owner: Owner, arguments: argparse.Namespace) -> int:
    query = urlencode({"id": arguments.id, "message": arguments.message or ""})
    found = _asked(owner, f"/invocation/again?{query}", b"")
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _print_comparison(found)
    return 0 if found["same"] else DIFFERS


def _print_comparison(found: dict[str, Any]) -> None:
    if found["reloaded"]:
        print(f"reloaded: {', '.join(found['reloaded'])}")
    after = found["after"]
    status = "" if after["status"] is None else f" {after['status']}"
    print(f"{found['again']}: {after['outcome']}{status}, {'same' if found['same'] else 'differs'}")
    for each in found["differences"]:
        for sign, side in (("-", each["before"]), ("+", each["after"])):
            lines = side if isinstance(side, list) else [] if side is None else [side]
            for line in lines:
                text = printable(f"{each['what']}: {line}").replace("\n", "\n    ")
                print(f"{sign} {text}")


def _write_fixture(owner: Owner, arguments: argparse.Namespace) -> None:
    ids = [each["id"] for each in _listed(owner, arguments)]
    with ask(owner, "/fixture", json.dumps({"ids": ids}).encode()) as answer:
        if answer.status != 200:
            raise _error(answer.status, answer.read())
        try:
            with arguments.output.open("xb") as file:
                file.writelines(pieces(answer))
        except FileExistsError as error:
            raise UsageError(
                f"--output: {arguments.output} is there already; choose another file"
            ) from error
        count = answer.headers["edgesim-requests"]
        left_out = json.loads(answer.headers["edgesim-left-out"])
    print(f"{count} requests in {arguments.output}")
    for reason, number in left_out.items():
        complain(f"{number} left out: {reason}")


def _asked(owner: Owner, path: str, body: bytes | None = None, method: str = "POST") -> Any:
    with ask(owner, path, body, method) as answer:
        content = b"".join(pieces(answer))
        if answer.status != 200:
            raise _error(answer.status, content)
        return json.loads(content)


def _error(status: int | None, content: bytes) -> UsageError | RunError:
    text = content.decode("utf-8", "replace").strip()
    return UsageError(text) if status == 400 else RunError(text)

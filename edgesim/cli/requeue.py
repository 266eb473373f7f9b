"""``edgesim r2 requeue``: page by page, with a progress line on a terminal.

It can be interrupted and repeated: an object whose notification is sent again is inserted once.
"""

from __future__ import annotations

import sys
from typing import Any

from edgesim.cli.operate import perform
from edgesim.config import Project

BAR_CHARS = 30


def requeue(project: Project, arguments: dict[str, Any]) -> dict[str, int]:
    """Requeue all pages; return the number of chosen objects and of sent messages."""
    total = _objects(project, arguments)
    done = {"objects": 0, "messages": 0}
    seen, after = 0, ""
    while True:
        page = perform(project, "r2.requeue", {**arguments, "after": after})
        for name in done:
            done[name] += page[name]
        seen += page["seen"]
        _show(seen, max(seen, total))
        if page["next"] is None:
            break
        after = page["next"]
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return done


def _objects(project: Project, arguments: dict[str, Any]) -> int:
    """Number of objects to read, for the progress bar; 0 if stderr is not a terminal."""
    if not sys.stderr.isatty():
        return 0
    asked: dict[str, Any] = {
        name: arguments[name] for name in ("bucket", "prefix") if name in arguments
    }
    return int(perform(project, "r2.count", asked)["objects"])


def _show(seen: int, total: int) -> None:
    if sys.stderr.isatty():
        filled = BAR_CHARS * seen // total if total else BAR_CHARS
        bar = "#" * filled + "." * (BAR_CHARS - filled)
        print(f"\r[{bar}] {seen} of {total} objects", end="", file=sys.stderr, flush=True)

"""Log lines for a person: one short line an invocation, console lines as they were written."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

_RESET, _DIM, _RED, _YELLOW = "\x1b[0m", "\x1b[2m", "\x1b[31m", "\x1b[33m"
_COLOURS = {"error": _RED, "critical": _RED, "warning": _YELLOW}
_WORKER_WIDTH = 14


class TerminalRenderer:
    """A processor for structlog; lines that are not of an invocation keep structlog's own form."""

    def __init__(self) -> None:
        self._other = structlog.dev.ConsoleRenderer(sort_keys=False, pad_event_to=12)

    def __call__(self, logger: Any, method: str, entry: MutableMapping[str, Any]) -> str:
        text = _text(entry)
        if text is None:
            return str(self._other(logger, method, entry))
        colour = _COLOURS.get(str(entry.get("level")), "")
        worker = str(entry["worker"])
        line = f"{_DIM}{entry['timestamp']}{_RESET} {worker:<{_WORKER_WIDTH}} "
        return f"{line}{colour}{text}{_RESET if colour else ''}"


def _text(entry: Mapping[str, Any]) -> str | None:
    """The words of a line about an invocation; None for other lines."""
    event = str(entry["event"])
    if "worker" not in entry:
        return None
    if event.startswith("console.") and "text" in entry:
        return str(entry["text"])
    if event == "uncaught exception":
        status = f" (status {entry['status']})" if "status" in entry else ""
        return f"{entry['exception']}{status}"
    if "outcome" in entry and "wall_ms" in entry:
        return f"{_happened(event, entry)} {_milliseconds(entry['wall_ms'])}"
    return None


def _happened(handler: str, entry: Mapping[str, Any]) -> str:
    if handler == "fetch":
        words = f"{entry['request']} {entry.get('status', '-')}"
    elif handler == "queue":
        words = f"queue {entry['queue']}: {entry['acked']} acked, {entry['retried']} retried"
    else:
        words = handler
    return words if entry["outcome"] == "ok" else f"{words} {entry['outcome']}"


def _milliseconds(wall_ms: float) -> str:
    return f"{wall_ms:.0f} ms" if wall_ms >= 1 else "<1 ms"

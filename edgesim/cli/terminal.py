"""Log lines for people: one short line per invocation, console lines as the Worker wrote them."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

_RESET, _DIM, _RED, _YELLOW = "\x1b[0m", "\x1b[2m", "\x1b[31m", "\x1b[33m"
_COLOURS = {"error": _RED, "critical": _RED, "warning": _YELLOW}
_WORKER_WIDTH = 14
_INDENT = " " * (len("00:00:00 ") + _WORKER_WIDTH + 1)
_CONTROL = re.compile(r"[^\n\t -~\xa0-\u2027\u202f-\u2065\u206a-\uffff\U00010000-\U0010ffff]")
"""Control characters, and characters that reorder text (Unicode's bidirectional marks)."""
_ORIGIN = re.compile(r" https?://[^/?#]*")
_NEVER_QUOTED = {"event", "exception"}


class TerminalRenderer:
    """A structlog processor; lines that do not concern an invocation keep structlog's format."""

    def __init__(self) -> None:
        self._other = structlog.dev.ConsoleRenderer(sort_keys=False, pad_event_to=12)

    def __call__(self, logger: Any, method: str, entry: MutableMapping[str, Any]) -> str:
        text = _text(entry)
        if text is None:
            return str(self._other(logger, method, _printable_entry(entry)))
        colour = _COLOURS.get(str(entry.get("level")), "")
        worker = str(entry["worker"])
        line = f"{_DIM}{entry['timestamp']}{_RESET} {worker:<{_WORKER_WIDTH}} "
        # Further lines are indented, so that none can be mistaken for a log line.
        text = printable(text).replace("\n", f"\n{_INDENT}")
        return f"{line}{colour}{text}{_RESET if colour else ''}"


def printable(text: str) -> str:
    """Replace control characters by their escape codes; keep newlines and tabs.

    Otherwise text of Workers and clients could send escape sequences to the terminal.
    """
    return text if text.isprintable() else _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def _printable_entry(entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in entry.items():
        # structlog's renderer quotes values with spaces.
        if isinstance(value, str) and (name in _NEVER_QUOTED or " " not in value):
            entry[name] = printable(value)
    return entry


def _text(entry: Mapping[str, Any]) -> str | None:
    """Text of a line about an invocation; None for other lines."""
    event = str(entry["event"])
    if "worker" not in entry:
        return None
    if event.startswith("console.") and "text" in entry:
        return str(entry["text"])
    if event == "uncaught exception":
        status = f" (status {entry['status']})" if "status" in entry else ""
        cure = f"\n{entry['cure']}" if "cure" in entry else ""
        return f"{entry['exception']}{status}{cure}"
    if "outcome" in entry and "wall_ms" in entry:
        return f"{_happened(event, entry)} {_milliseconds(entry['wall_ms'])}"
    return None


def _happened(handler: str, entry: Mapping[str, Any]) -> str:
    if handler == "fetch":
        request = _ORIGIN.sub(" ", entry["request"], 1)  # the line names the Worker already
        words = f"{request} {entry.get('status', '-')}"
    elif handler == "queue":
        words = f"queue {entry['queue']}: {entry['acked']} acked, {entry['retried']} retried"
    else:
        words = handler
    return words if entry["outcome"] == "ok" else f"{words} {entry['outcome']}"


def _milliseconds(wall_ms: float) -> str:
    return f"{wall_ms:.0f} ms" if wall_ms >= 1 else "<1 ms"

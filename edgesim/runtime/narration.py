"""Log lines of an invocation: the Worker's console, its exceptions, and the outcome."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from edgesim.isolates.protocol.wire import Done
from edgesim.model import TraceException, TraceItem, TraceLog
from edgesim.runtime.cures import cure_for
from edgesim.runtime.decisions import settle
from edgesim.runtime.failure import status_of
from edgesim.runtime.redaction import redact_url

CONSOLE_CHARS_MAX = 16_384
"""Longer console lines are cut; JSON up to this length stays complete."""
_LEVELS = {"error": logging.ERROR, "warn": logging.WARNING}
_CONSOLE = {level: f"console.{level}" for level in ("debug", "info", "log", "warn", "error")}


def narrate(
    log: structlog.typing.FilteringBoundLogger,
    handler: str,
    event: Any,
    done: Done,
    item: TraceItem,
    main: Path,
) -> None:
    """Log an invocation.  Routine lines are not formatted if the INFO level is disabled.

    ``event`` is the handler's event, ``main`` the path of the Worker's main module.
    """
    status = _status(handler, item)
    for exception in item.exceptions:
        cure = cure_for(exception.message, main)
        cured = {} if cure is None else {"cure": cure}
        log.error("uncaught exception", **_shown(exception), **status, **cured)
    routine = log.is_enabled_for(logging.INFO)
    for entry in item.logs:
        level = _LEVELS.get(entry.level, logging.INFO)
        if routine or level > logging.INFO:
            log.log(level, _CONSOLE[entry.level], text=_text(entry))
    if routine:
        log.info(
            handler,
            **_details(handler, event, done, item),
            **status,
            outcome=item.outcome,
            cpu_ms=item.cpu_time,
            wall_ms=item.wall_time,
        )


def _shown(exception: TraceException) -> dict[str, str]:
    """Return the exception; a JavaScript one with its class and the place that threw it."""
    if exception.stack is None or exception.message in exception.stack:
        return {"exception": exception.message}
    place = exception.stack.partition("\n")[0].strip()
    return {"exception": f"{exception.name}: {exception.message}", "place": place}


def _text(entry: TraceLog) -> str:
    text = " ".join(part if isinstance(part, str) else str(part) for part in entry.message)
    cut = len(text) - CONSOLE_CHARS_MAX
    return text if cut <= 0 else f"{text[:CONSOLE_CHARS_MAX]}... ({cut} characters more)"


def _status(handler: str, item: TraceItem) -> dict[str, Any]:
    """Return the HTTP status sent to the client; empty if the client had disconnected."""
    if handler != "fetch" or item.outcome == "canceled":
        return {}
    response: Mapping[str, Any] | None = (item.event or {}).get("response")
    return {"status": status_of(item.outcome) if response is None else response["status"]}


def _details(handler: str, event: Any, done: Done, item: TraceItem) -> dict[str, Any]:
    if handler == "fetch":
        request = (item.event or {})["request"]
        return {"request": f"{request['method']} {redact_url(request['url'])}"}
    if handler == "queue":
        result = settle([message["id"] for message in event["messages"]], done)
        acked, retried = len(result.acks), len(result.retries)
        return {"queue": event["queue"], "acked": acked, "retried": retried}
    return {}

"""How logs look: for a person on a terminal, JSON lines otherwise; always on stderr.

Logging never fails and never waits, whoever reads the log: see ``line_writer``.
"""

from __future__ import annotations

import atexit
import logging
import re
import sys
from collections.abc import MutableMapping
from functools import partial
from typing import Any, TextIO, cast

import structlog

from edgesim import line_writer
from edgesim.line_writer import LineStream, LineWriter

_CONTROL = re.compile(r"[^\n\t -~\xa0-\u2027\u202f-\u2065\u206a-\uffff\U00010000-\U0010ffff]")
"""Control characters, and what reorders text (Unicode's bidirectional marks)."""
_NEVER_QUOTED = {"event", "exception"}


def configure(*, verbose: bool, json: bool = False, service: bool = False) -> None:
    """Set structlog up, once, before anything logs; ``verbose`` False leaves out routine.

    ``json`` True: JSON lines on a terminal as well.  ``service`` True: a reader of standard output
    that goes away must not end the process either.
    """
    terminal = sys.stderr.isatty() and not json
    level = logging.INFO if verbose else logging.WARNING
    render = _Renderer(terminal=terminal)
    if service:
        sys.stdout = _safe(sys.stdout, lambda lines: f"{lines} lines were dropped\n")
    sys.stderr = _safe(sys.stderr, partial(_report, render))
    atexit.register(line_writer.flush)
    structlog.configure(
        processors=[render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # The stream as it is now: a level that routes worker output replaces sys.stderr later.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


class _Renderer:
    """The processors of structlog as one, which renders something whatever it is given."""

    def __init__(self, *, terminal: bool) -> None:
        self._processors: list[structlog.typing.Processor] = [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(
                fmt="%H:%M:%S" if terminal else "iso", utc=not terminal
            ),
            structlog.processors.format_exc_info,
        ]
        self._processors += (
            [_printable, structlog.dev.ConsoleRenderer(sort_keys=False, pad_event_to=12)]
            if terminal
            else [structlog.processors.JSONRenderer()]
        )

    def __call__(self, logger: Any, method: str, entry: MutableMapping[str, Any]) -> str:
        event = str(entry["event"])
        try:
            return self._rendered(logger, method, entry)
        except Exception as error:  # noqa: BLE001 (a value whose repr raises, or nested too deep)
            problem = f"{type(error).__name__} in the fields of this log line"
            return self._rendered(logger, method, {"event": event, "log_error": problem})

    def _rendered(self, logger: Any, method: str, entry: MutableMapping[str, Any]) -> str:
        value: Any = entry
        for process in self._processors:
            value = process(logger, method, value)
        return str(value)


def _printable(
    _logger: Any, _method: str, entry: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Show control characters by their codes: texts of Workers and clients do not steer terminals.

    Lines of an exception stay lines.
    """
    for name, value in entry.items():
        # The renderer quotes values with spaces.
        is_raw = isinstance(value, str) and (name in _NEVER_QUOTED or " " not in value)
        if is_raw and not value.isprintable():
            entry[name] = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], value)
    return entry


def _report(render: _Renderer, lines: int) -> str:
    event = {"event": "log lines dropped: the log could not be written", "lines": lines}
    return render(None, "warning", event) + "\n"


def _safe(stream: TextIO, report: Any) -> TextIO:
    """The stream with a LineWriter behind it; as it is if it has no descriptor."""
    if isinstance(stream, LineStream):
        return stream
    try:
        fd = stream.fileno()
    except (OSError, ValueError):
        return stream
    stream.flush()
    return cast("TextIO", LineStream(fd, LineWriter(fd, report)))

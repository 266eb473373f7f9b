"""Log output on stderr: for people on a terminal, otherwise JSON lines.

Logging never fails and never blocks, even if the reader is slow or has exited: see ``line_writer``.
"""

from __future__ import annotations

import atexit
import logging
import sys
from collections.abc import MutableMapping
from functools import partial
from typing import Any, TextIO, cast

import structlog

from edgesim import line_writer
from edgesim.cli.terminal import TerminalRenderer
from edgesim.line_writer import LineStream, LineWriter


def configure(*, verbose: bool, json: bool = False, service: bool = False) -> None:
    """Configure structlog; call it once, before anything logs.

    ``verbose`` False: only warnings and errors. ``json`` True: JSON lines on a terminal as well.
    ``service`` True: the process also survives a reader of standard output that closes its pipe.
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
        # Bind the current stream: an isolation level that routes Worker output replaces sys.stderr
        # later.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


class _Renderer:
    """All structlog processors as one, which renders a line even if a field cannot be rendered."""

    def __init__(self, *, terminal: bool) -> None:
        self._processors: list[structlog.typing.Processor] = [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(
                fmt="%H:%M:%S" if terminal else "iso", utc=not terminal
            ),
            structlog.processors.format_exc_info,
            TerminalRenderer() if terminal else structlog.processors.JSONRenderer(),
        ]

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


def _report(render: _Renderer, lines: int) -> str:
    event = {"event": "log lines dropped: the log could not be written", "lines": lines}
    return render(None, "warning", event) + "\n"


def _safe(stream: TextIO, report: Any) -> TextIO:
    """Wrap the stream in a LineWriter; return it unchanged if it has no file descriptor."""
    if isinstance(stream, LineStream):
        return stream
    try:
        fd = stream.fileno()
    except (OSError, ValueError):
        return stream
    stream.flush()
    return cast("TextIO", LineStream(fd, LineWriter(fd, report)))

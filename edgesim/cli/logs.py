"""How logs look: for a person on a terminal, JSON lines otherwise; always on stderr."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(*, verbose: bool, json: bool = False) -> None:
    """Set structlog up, once, before anything logs; ``verbose`` False leaves out routine.

    ``json`` True: JSON lines on a terminal as well.
    """
    terminal = sys.stderr.isatty() and not json
    level = logging.INFO if verbose else logging.WARNING
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(
                fmt="%H:%M:%S" if terminal else "iso", utc=not terminal
            ),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(sort_keys=False, pad_event_to=12)
            if terminal
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # The stream as it is now: a level that routes worker output replaces sys.stderr later.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )

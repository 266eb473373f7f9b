"""Log records as plain values, and the approximate memory of what waits for its export."""

from __future__ import annotations

from typing import Any

import msgspec

from edgesim.tracing import Attributes, Span, TraceContext

ITEM_BYTES = 1000
"""Approximate memory of a span or record without its texts."""
LINK_BYTES = 100


class LogRecord(msgspec.Struct):
    """One record; ``time_ns`` is Unix nanoseconds, ``level`` a console level."""

    time_ns: int
    level: str
    body: str
    context: TraceContext | None
    worker: str
    attributes: Attributes = {}


def bytes_of(item: Span | LogRecord) -> int:
    """Approximate memory of a span or record."""
    size = ITEM_BYTES + sum(map(_text_bytes, item.attributes.values()))
    if isinstance(item, LogRecord):
        return size + len(item.body)
    return size + LINK_BYTES * len(item.links)


def _text_bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(map(_text_bytes, value)) if isinstance(value, list) else 0

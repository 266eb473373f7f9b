"""Server-Sent Events, the form in which the admin API streams."""

from __future__ import annotations

import msgspec

IDLE = b": idle\n\n"
"""A comment, so that neither side takes an idle stream for dead."""


def event(name: str, data: object, identifier: str = "") -> bytes:
    """One event; its data is one line of JSON, so no value can begin another event."""
    head = f"id: {identifier}\nevent: {name}" if identifier else f"event: {name}"
    return b"%s\ndata: %s\n\n" % (head.encode(), msgspec.json.encode(data))

"""Server-Sent Events, the form in which the admin API streams."""

from __future__ import annotations

import msgspec

IDLE = b": idle\n\n"
"""A comment, so that neither side takes an idle stream for dead."""


def event(name: str, data: object) -> bytes:
    """One event; its data is one line of JSON, so no value can begin another event."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))

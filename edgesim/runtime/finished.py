"""A finished invocation with the event of its handler, so that the event can be sent again."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from edgesim.isolates.protocol.wire import DEFAULT, Done
from edgesim.model import TraceItem
from edgesim.runtime.spans import InvocationSpans

REPLY_BYTES_MAX = 16_384
"""Larger response bodies are not kept."""


class FinishedInvocation(msgspec.Struct, frozen=True):
    """A finished invocation.

    ``event`` is the handler's: an HttpRequest, or values; ``size`` that of its body or messages in
    bytes.  ``reply`` is the response's body, None if it was a stream or too large.  ``depth`` is
    the number of Workers that a request had come through.  ``spans`` is there while traces or logs
    are exported.
    """

    handler: str
    item: TraceItem
    done: Done
    event: Any
    size: int = 0
    reply: bytes | None = None
    depth: int = 0
    entrypoint: str = DEFAULT
    spans: InvocationSpans | None = None


class InvocationSink(Protocol):
    """Receiver of finished invocations."""

    def finished(self, invocation: FinishedInvocation) -> None:
        """Receive one."""

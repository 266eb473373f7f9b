"""Format of a queue's message in its stream: a subject, a header beside the body, an id.

``place.queue.ready.id`` is delivered to consumers; ``place.queue.delayed.when.number.id`` waits
until its due time, so that a list of subjects is a schedule.
"""

from __future__ import annotations

import msgspec

from edgesim.jetstream.server import Publication, StreamMessage
from edgesim.model import ContentType, Message
from edgesim.queues.driver import NewMessage

_HEADER = "Edgesim-Message"
TRACE = "Edgesim-Trace"
"""Header with the trace context of the producer; left out where it does not fit."""


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """Metadata stored with a body; timestamps in Unix ms, ``visible_at`` in Unix seconds."""

    id: str
    content_type: ContentType
    timestamp_ms: int
    visible_at: float
    attempts: int = 0


class QueueSubjects:
    """Subjects and encoding of one queue's messages."""

    def __init__(self, place: str, queue: str) -> None:
        self._place = place
        self._queue = queue

    def subject(self, *rest: str) -> str:
        """A subject of this queue."""
        return ".".join((self._place, self._queue, *rest))

    def new(self, message: NewMessage, delayed: int | None) -> Publication:
        """A new message; ``delayed`` is its number among those sent for the same time."""
        kept = Kept(message.id, message.content_type, message.timestamp_ms, message.visible_at)
        return self._outgoing(kept, message.body, message.id, delayed, message.trace)

    def successor(
        self, found: StreamMessage, kept: Kept, *, delayed: int | None = None, source: str = ""
    ) -> Publication:
        """The replacement of a message, of this queue or of ``source``.

        Each message has one successor: if another node publishes it too, the server keeps only one
        of them.
        """
        message_id = f"{source or self._queue}.{found.seq}"
        return self._outgoing(kept, found.body, message_id, delayed, found.headers.get(TRACE, ""))

    def _outgoing(
        self, kept: Kept, body: bytes, message_id: str, delayed: int | None, trace: str
    ) -> Publication:
        when = f"{kept.visible_at:017.6f}".replace(".", "_")
        kind = ("ready",) if delayed is None else ("delayed", when, f"{delayed:03d}")
        subject = self.subject(*kind, kept.id)
        headers = {_HEADER: msgspec.json.encode(kept).decode()}
        if trace:
            headers[TRACE] = trace
        return Publication(subject, body, headers, message_id, optional=TRACE)


def kept_of(found: StreamMessage) -> Kept:
    """Read the metadata stored with a message."""
    return msgspec.json.decode(found.headers[_HEADER], type=Kept)


def message_of(found: StreamMessage, kept: Kept, attempts: int, lease_id: str = "") -> Message:
    """The message as a consumer receives it."""
    trace = found.headers.get(TRACE, "")
    stamp = kept.timestamp_ms
    return Message(kept.id, found.body, kept.content_type, stamp, attempts, lease_id, trace)


def visible_at(subject: str) -> float:
    """Due time in the subject of a ``delayed`` message, in Unix seconds."""
    return float(subject.split(".")[-3].replace("_", "."))

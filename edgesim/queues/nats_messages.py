"""What a message of a queue is in its stream: a subject, a header beside the body, an id.

``place.queue.ready.id`` is given to consumers; ``place.queue.delayed.when.number.id`` waits, and
says until when, so that a list of subjects is a timetable.
"""

from __future__ import annotations

import msgspec

from edgesim.model import ContentType, Message
from edgesim.queues.driver import NewMessage
from edgesim.queues.jetstream import Outgoing, Stored

_HEADER = "Edgesim-Message"


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is kept with a body; times are Unix milliseconds and seconds."""

    id: str
    content_type: ContentType
    timestamp_ms: int
    visible_at: float
    attempts: int = 0


class Layout:
    """The messages of one queue."""

    def __init__(self, place: str, queue: str) -> None:
        self._place = place
        self._queue = queue

    def subject(self, *rest: str) -> str:
        """A subject of this queue's."""
        return ".".join((self._place, self._queue, *rest))

    def new(self, message: NewMessage, delayed: int | None) -> Outgoing:
        """A message that comes in; ``delayed`` is its place among those of the same time."""
        kept = Kept(message.id, message.content_type, message.timestamp_ms, message.visible_at)
        return self._outgoing(kept, message.body, message.id, delayed)

    def successor(
        self, found: Stored, kept: Kept, *, delayed: int | None = None, source: str = ""
    ) -> Outgoing:
        """What takes the place of a message, of this queue's or of ``source``'s.

        There is one successor a message: if another node makes it too, the server keeps one of
        them.
        """
        message_id = f"{source or self._queue}.{found.seq}"
        return self._outgoing(kept, found.body, message_id, delayed)

    def _outgoing(self, kept: Kept, body: bytes, message_id: str, delayed: int | None) -> Outgoing:
        when = f"{kept.visible_at:017.6f}".replace(".", "_")
        kind = ("ready",) if delayed is None else ("delayed", when, f"{delayed:03d}")
        subject = self.subject(*kind, kept.id)
        return Outgoing(subject, body, {_HEADER: msgspec.json.encode(kept).decode()}, message_id)


def kept_of(found: Stored) -> Kept:
    """What was kept with it."""
    return msgspec.json.decode(found.headers[_HEADER], type=Kept)


def message_of(kept: Kept, body: bytes, attempts: int, lease_id: str = "") -> Message:
    """The message as a consumer has it."""
    return Message(kept.id, body, kept.content_type, kept.timestamp_ms, attempts, lease_id)


def visible_at(subject: str) -> float:
    """When the message of a ``delayed`` subject is due."""
    return float(subject.split(".")[-3].replace("_", "."))

"""What a queue needs of a store, and the stores there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from edgesim.model import ContentType, Message

DRIVERS = {
    "memory": "edgesim.queues.memory:open_queues",
    "nats": "edgesim.queues.nats:open_queues",
    "sqlite": "edgesim.queues.sqlite:open_queues",
}


class NewMessage(msgspec.Struct, frozen=True):
    """A message on its way in; invisible until ``visible_at`` (Unix seconds)."""

    id: str
    body: bytes
    content_type: ContentType
    timestamp_ms: int
    visible_at: float


class Depth(msgspec.Struct, frozen=True):
    """How much a queue holds, leased messages included; times are Unix seconds."""

    messages: int
    bytes: int
    oldest_ms: int | None = None
    next_visible_at: float | None = None


class QueueDriver(Protocol):
    """A store of messages.

    A module exports ``open_queues(url, clock)``, an async context manager that yields a driver, and
    ``DETERMINISTIC``: True where it uses neither sockets nor threads.  A queue exists as soon as
    its name is used.

    A lease is named by the message's ``lease_id``, which may be given back through any process that
    has the store open.  One that ran out may still be given back until somebody leases its message
    anew; from then on, and where the message is gone, it is nothing to do.
    Leases do not outlive the process that took them: their messages are soon visible again.
    Failures of the store are raised as RunError.

    A store that works inline (DETERMINISTIC) lets others run at least every few hundred messages.
    What concerns many messages at once is for those that were there at the call, and is done in
    parts: others may see some of it, and a process that dies has done some of it.
    """

    async def send(self, queue: str, messages: Sequence[NewMessage]) -> None:
        """All of them or none; durable when it returns."""

    async def lease(
        self, queue: str, limit: int, now: float, until: float, leased_max: int | None = None
    ) -> Sequence[Message]:
        """Up to ``limit`` visible messages, oldest first, invisible to others ``until`` then.

        Each lease adds one to the message's attempts (the first delivery has attempts 1).  Over all
        processes no more than ``leased_max`` messages of the queue are leased at a time.
        """

    async def ack(self, queue: str, lease_ids: Sequence[str]) -> int:
        """Remove leased messages for good; how many, as far as the store can tell."""

    async def release(
        self, queue: str, lease_ids: Sequence[str], visible_at: float, counts: bool = True
    ) -> int:
        """End leases: the messages are visible again from ``visible_at`` on; how many.

        Without ``counts`` the lease is taken off the message's attempts again.
        """

    async def move(self, queue: str, lease_ids: Sequence[str], to: str, now: float) -> int:
        """Take leased messages to another queue; how many.

        Id, body and timestamp are kept, attempts start from 0, visible ``now``.
        """

    async def redrive(self, queue: str, to: str, limit: int, now: float) -> int:
        """Take the oldest ``limit`` messages to another queue as ``move`` does, leased or not.

        Of those that were there at the call; how many.
        """

    async def peek(self, queue: str, limit: int) -> Sequence[Message]:
        """The oldest messages, leased or not, untouched."""

    async def depth(self, queue: str) -> Depth:
        """How much the queue holds; ``next_visible_at`` is over messages that are not leased."""

    async def purge(self, queue: str) -> int:
        """Remove all that was there at the call; how many messages."""

    async def drop(self, queue: str) -> None:
        """Remove the queue itself and everything in it; no other process may be using it."""

    async def expire(self, queue: str, before_ms: int) -> int:
        """Remove unleased messages with a timestamp before ``before_ms``; how many that were."""

    async def names(self) -> Sequence[str]:
        """Names of the queues that hold a message."""

    async def claim(self, name: str) -> bool:
        """Whether this process may do what ``name`` says: of all processes, one is told yes.

        The name is kept for two minutes.  Where a store has one process at a time, that one may.
        """

    async def changed_elsewhere(self) -> str:
        """Wait until another process has changed a queue; its name.

        May tell too often; what it missed, a consumer finds when it looks by itself.  Where a store
        has one process at a time, this waits forever.
        """

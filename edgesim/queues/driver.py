"""The interface of a queue store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from edgesim.model import ContentType, Message


class NewMessage(msgspec.Struct, frozen=True):
    """A message to be stored; invisible until ``visible_at`` (Unix seconds)."""

    id: str
    body: bytes
    content_type: ContentType
    timestamp_ms: int
    visible_at: float
    trace: str = ""
    """Trace context of its producer (``traceparent``), stored with the body."""


class Depth(msgspec.Struct, frozen=True):
    """Size of a queue, leased messages included; times in Unix ms and seconds."""

    messages: int
    bytes: int
    oldest_ms: int | None = None
    next_visible_at: float | None = None


class QueueDriver(Protocol):
    """A store of messages.

    A module exports ``open_queues(url, clock)``, an async context manager that yields a driver, and
    declares the Properties of edgesim.drivers.  A queue exists as soon as its name is used.

    A lease is named by the message's ``lease_id``, which any process that has the store open may
    settle.  An expired lease may still be settled until its message is leased again; after that, or
    if the message is removed, settling it has no effect.  Leases do not outlive the process that
    took them: their messages are soon visible again.  Failures of the store are raised as RunError.

    A store without its own thread (DETERMINISTIC) yields to the event loop at least every few
    hundred messages.  An operation on many messages covers those present at the call, and is done
    in parts: other tasks may see a part of it, and a crash may leave a part of it done.
    """

    async def send(self, queue: str, messages: Sequence[NewMessage]) -> None:
        """Store all of the messages or none; durable on return."""

    async def lease(
        self, queue: str, limit: int, now: float, until: float, leased_max: int | None = None
    ) -> Sequence[Message]:
        """Lease up to ``limit`` visible messages, oldest first, invisible to others ``until`` then.

        Each lease adds one to the message's attempts (the first delivery has attempts 1).  Over all
        processes at most ``leased_max`` messages of the queue are leased at a time.
        """

    async def ack(self, queue: str, lease_ids: Sequence[str]) -> int:
        """Remove leased messages; returns their number, as far as the store knows it."""

    async def release(
        self, queue: str, lease_ids: Sequence[str], visible_at: float, counts: bool = True
    ) -> int:
        """End leases; the messages are visible again from ``visible_at`` on; returns their number.

        Without ``counts`` the lease is subtracted from the message's attempts.
        """

    async def move(self, queue: str, lease_ids: Sequence[str], to: str, now: float) -> int:
        """Move leased messages to another queue; returns their number.

        Id, body and timestamp are kept, attempts start from 0, the messages are visible ``now``.
        """

    async def redrive(self, queue: str, to: str, limit: int, now: float) -> int:
        """Move the oldest ``limit`` messages like ``move``, leased or not; returns their number.

        Only messages present at the call are moved.
        """

    async def peek(self, queue: str, limit: int) -> Sequence[Message]:
        """The oldest messages, leased or not, without any change to them."""

    async def depth(self, queue: str) -> Depth:
        """The size of the queue; ``next_visible_at`` covers messages that are not leased."""

    async def purge(self, queue: str) -> int:
        """Remove all messages present at the call; returns their number."""

    async def drop(self, queue: str) -> None:
        """Remove the queue and everything in it; no other process may be using it."""

    async def expire(self, queue: str, before_ms: int) -> int:
        """Remove unleased messages with a timestamp before ``before_ms``; returns their number."""

    async def names(self) -> Sequence[str]:
        """Names of the queues that hold a message."""

    async def claim(self, name: str) -> bool:
        """Claim a run: True for exactly one of all processes that claim this ``name``.

        The name is kept for two minutes.  A store with a single process always returns True.
        """

    async def changed_elsewhere(self) -> str:
        """Wait until another process has changed a queue; returns the queue's name.

        May report too often; a consumer finds unreported changes by polling.  A store with a single
        process waits forever.
        """

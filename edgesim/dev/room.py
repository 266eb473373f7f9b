"""Bounds of one listener: the connections it holds, and which of them makes room for the next.

A connection that waits for its client (no request yet, half a request, an answer nobody reads)
may be closed in favour of a new one, the longest wait first.  So clients that only hold connections
lock nobody out.  When every connection has a Worker at work, a new one is answered 503; a few more
are taken for the operator's requests.
"""

from __future__ import annotations

import resource
from typing import Literal, Protocol

import msgspec

OPERATOR_CONNECTIONS = 32
REFUSED_CONNECTIONS = 64
"""Beyond these, so many may stay long enough to read why they are refused."""
FILES_RESERVED = 256
"""Descriptors left for stores, isolates and everything else of the process."""


Place = Literal["any", "operator", "refused"]
"""What a new connection may ask for: anything, the operator's endpoints, nothing."""


class Limits(msgspec.Struct, frozen=True):
    """Limits of one listener: bytes, and seconds of waiting for a client."""

    connections: int = 1024
    url_bytes: int = 16_384
    head_bytes: int = 131_072
    head_seconds: float = 15
    """From the first byte of a request, or the connection's start, to the end of its headers."""
    idle_seconds: float = 5
    """Between two requests."""
    body_seconds: float = 30
    """In so long the client has to send ``bytes_least``, or the rest of the body."""
    write_seconds: float = 30
    """In so long the client has to take ``bytes_least`` of an answer, or the rest of it."""
    bytes_least: int = 15_000
    unread_bytes: int = 536_870_912
    """Of all large answers that their clients have not taken wholly."""
    linger_seconds: float = 10
    """For so long the rest of a request is read and dropped after the answer."""

    @property
    def backlog(self) -> int:
        """Connections that the kernel accepts ahead of us."""
        return max(16, self.connections // 4)


class Holder(Protocol):
    """A connection, as far as its place is concerned."""

    def evict(self) -> None:
        """Close now, for another's sake."""


class Room:
    """The places of one listener."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._holders: set[Holder] = set()
        self._waiting: dict[Holder, None] = {}
        self._unread: dict[Holder, int] = {}

    def enter(self, holder: Holder) -> Place | None:
        """Take a place; None if there is none at all."""
        if len(self._holders) >= self.limits.connections and self._waiting:
            self._evict(next(iter(self._waiting)))
        above = len(self._holders) - self.limits.connections
        if above >= OPERATOR_CONNECTIONS + REFUSED_CONNECTIONS:
            return None
        self._holders.add(holder)
        return "any" if above < 0 else "operator" if above < OPERATOR_CONNECTIONS else "refused"

    def leave(self, holder: Holder) -> None:
        """Give the place back, if it is still held."""
        self._holders.discard(holder)
        self._waiting.pop(holder, None)
        self._unread.pop(holder, None)

    def keeps(self, holder: Holder, size: int) -> None:
        """The connection keeps an answer of that size, 0 for none, until its client has taken it.

        Where all together keep too much, those that have waited longest for their clients go.
        """
        self._unread.pop(holder, None)
        if not size:
            return
        slow = [each for each in self._waiting if each in self._unread]
        while slow and sum(self._unread.values()) + size > self.limits.unread_bytes:
            self._evict(slow.pop(0))
        self._unread[holder] = size

    def _evict(self, holder: Holder) -> None:
        self.leave(holder)
        holder.evict()

    def waits(self, holder: Holder) -> None:
        """The connection begins to wait for its client; no change if it waits already."""
        if holder in self._holders:
            self._waiting.setdefault(holder)

    def busy(self, holder: Holder) -> None:
        """The connection no longer waits for its client."""
        self._waiting.pop(holder, None)


def limits_here(most: int = Limits().connections) -> Limits:
    """Limits that fit into the process's descriptors; the soft limit is raised to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files = 4 * (most + FILES_RESERVED) if hard == resource.RLIM_INFINITY else hard
    return Limits(connections=max(16, min(most, (files - FILES_RESERVED) // 2)))

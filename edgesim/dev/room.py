"""Connection limits of one listener, and eviction in favour of new connections.

A connection that waits for its client (no request yet, an incomplete request, an unread response)
may be closed in favour of a new one, the longest wait first. So clients that only hold connections
open cannot lock out others. If every connection has a Worker at work, a new one is answered with
503; a few more are accepted for the operator's requests.
"""

from __future__ import annotations

import resource
from typing import Literal, Protocol

import msgspec

OPERATOR_CONNECTIONS = 32
REFUSED_CONNECTIONS = 64
"""Further connections that may stay long enough to read their refusal."""
FILES_RESERVED = 256
"""File descriptors left for stores, isolates and other uses of the process."""


Place = Literal["any", "operator", "refused"]
"""Requests allowed on a new connection: any, only the operator's endpoints, or none."""


class ListenerLimits(msgspec.Struct, frozen=True):
    """Limits of one listener: bytes, and seconds of waiting for a client."""

    connections: int = 1024
    url_bytes: int = 16_384
    head_bytes: int = 131_072
    head_seconds: float = 15
    """Time from the connection's start, or a request's first byte, to the end of the headers."""
    idle_seconds: float = 5
    """Time between two requests."""
    body_seconds: float = 30
    """Time in which the client must send ``bytes_least``, or the rest of the body."""
    write_seconds: float = 30
    """Time in which the client must read ``bytes_least`` of a response, or the rest of it."""
    bytes_least: int = 15_000
    unread_bytes: int = 536_870_912
    """Limit for all large responses that clients have not read completely."""
    linger_seconds: float = 10
    """Time for which the rest of a request is read and dropped after the response."""

    @property
    def backlog(self) -> int:
        """Length of the kernel's accept queue."""
        return max(16, self.connections // 4)


class Holder(Protocol):
    """Interface of a connection that holds a place."""

    def evict(self) -> None:
        """Close now, in favour of another connection."""


class Room:
    """The connections of one listener."""

    def __init__(self, limits: ListenerLimits) -> None:
        self.limits = limits
        self.seconds = {
            phase: getattr(limits, f"{phase}_seconds")
            for phase in ("head", "idle", "body", "write", "linger")
        }
        """Maximum wait for a client, by the phase of its connection."""
        self._holders: set[Holder] = set()
        self._waiting: dict[Holder, None] = {}
        self._unread: dict[Holder, int] = {}

    def enter(self, holder: Holder) -> Place | None:
        """Take a place; None if even the places for refusals are full."""
        if len(self._holders) >= self.limits.connections and self._waiting:
            self._evict(next(iter(self._waiting)))
        above = len(self._holders) - self.limits.connections
        if above >= OPERATOR_CONNECTIONS + REFUSED_CONNECTIONS:
            return None
        self._holders.add(holder)
        return "any" if above < 0 else "operator" if above < OPERATOR_CONNECTIONS else "refused"

    def leave(self, holder: Holder) -> None:
        """Release the place, if it is still held."""
        self._holders.discard(holder)
        self._waiting.pop(holder, None)
        self._unread.pop(holder, None)

    def keeps(self, holder: Holder, size: int) -> None:
        """Set the size of the unread response that the connection holds in memory, 0 for none.

        If all connections together exceed ``unread_bytes``, those that have waited longest for
        their clients are evicted.
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
        """Mark the connection as waiting for its client; no effect if it already waits."""
        if holder in self._holders:
            self._waiting.setdefault(holder)

    def busy(self, holder: Holder) -> None:
        """Mark the connection as no longer waiting for its client."""
        self._waiting.pop(holder, None)


def limits_here(most: int = ListenerLimits().connections) -> ListenerLimits:
    """Limits that fit the process's file descriptors; raises the soft limit to the hard limit.

    Where that is infinite, as on macOS, to as many as are needed: the kernel refuses infinity.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 4 * (most + FILES_RESERVED)
    files = max(soft, enough) if hard == resource.RLIM_INFINITY else hard
    if soft != files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return ListenerLimits(connections=max(16, min(most, (files - FILES_RESERVED) // 2)))

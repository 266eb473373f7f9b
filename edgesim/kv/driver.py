"""The interface of a key-value store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class KvEntry(msgspec.Struct, frozen=True):
    """A stored value; ``expiration`` in Unix seconds, ``metadata`` as JSON text."""

    value: bytes
    expiration: int | None = None
    metadata: str | None = None


class KvKey(msgspec.Struct, frozen=True):
    """A key in a listing; its fields are those of KvEntry."""

    name: str
    expiration: int | None = None
    metadata: str | None = None


class KvDriver(Protocol):
    """A store of namespaces, each a mapping from keys to entries.

    A module exports ``open_kv(url, clock)``, an async context manager that yields a driver, and
    declares the Properties of edgesim.drivers.  A namespace exists as soon as its id is used.  Keys
    are 1 to 512 bytes of UTF-8, values up to 25 MiB.

    An entry whose expiration is at or before ``now`` (Unix seconds) is never returned; the store
    removes it at some later time.  Failures of the store are raised as RunError.
    """

    async def get(self, namespace: str, key: str, now: float) -> KvEntry | None:
        """Return the entry of a key; None if there is none."""

    async def put(self, namespace: str, key: str, entry: KvEntry, now: float) -> None:
        """Store an entry, in place of an earlier one; durable on return."""

    async def delete(self, namespace: str, key: str) -> None:
        """Remove the entry of a key, if there is one; durable on return."""

    async def list(
        self, namespace: str, prefix: str, after: str, limit: int, now: float
    ) -> Sequence[KvKey]:
        """Return up to ``limit`` keys that begin with ``prefix`` and come after ``after``.

        Their order is that of the bytes of UTF-8.
        """

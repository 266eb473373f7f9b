"""Objects on this machine: what is known of each in SQLite, its bytes in blobs beside it.

One transaction commits an object together with its notifications.  Blobs are called by ids of
their own, never by keys, and are written whole before the commit that makes them an object's; what
a crash leaves behind without an object is removed at the next start.  The object's row names its
blob, so nothing needs renaming, and a reader keeps the blob that it opened.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import msgspec

from edgesim.clock import Clock
from edgesim.model import R2Object
from edgesim.r2.database import Database
from edgesim.r2.driver import Finished, Outgoing, R2Driver
from edgesim.r2.outbox import SCHEMA as OUTBOX_SCHEMA
from edgesim.r2.outbox import Outbox

# Keys are stored as UTF-8 bytes: SQLite then compares as R2 lists, and a NUL is a byte like others.
SCHEMA = (
    OUTBOX_SCHEMA
    + """
CREATE TABLE IF NOT EXISTS objects (
  bucket TEXT NOT NULL,
  key BLOB NOT NULL,
  blob TEXT NOT NULL,
  size INTEGER NOT NULL,
  object BLOB NOT NULL,
  PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS objects_by_size ON objects (bucket, size);
"""
)


class Blobs(Protocol):
    """Bytes by name; failures are raised as RunError."""

    async def write(self, name: str, body: AsyncIterator[bytes]) -> None:
        """Durable and whole when it returns; what is left after a failure is for ``drop``."""

    def read(self, name: str, offset: int, length: int) -> AsyncIterator[bytes]:
        """Opened at once, so that dropping the blob does not disturb the reader."""

    def drop(self, name: str) -> None:
        """Remove, if it is there; never raises."""

    def names(self) -> Sequence[str]:
        """All blobs."""


class IndexedR2:
    """An R2 driver over SQLite and blobs."""

    def __init__(self, database: Database, blobs: Blobs, clock: Clock) -> None:
        self._database = database
        self._outbox = Outbox(database)
        self._blobs = blobs
        self._clock = clock

    def remove_orphans(self) -> None:
        """Drop blobs that no object names; only while nobody writes."""
        named = {row[0] for row in self._database.run("SELECT blob FROM objects")}
        for name in self._blobs.names():
            if name not in named:
                self._blobs.drop(name)

    async def put(
        self,
        bucket: str,
        key: str,
        body: AsyncIterator[bytes],
        finish: Callable[[], Finished],
    ) -> None:
        blob = self._clock.hex_id()
        try:
            await self._blobs.write(blob, body)
            finished = finish()
            with self._database.transaction():
                replaced = self._find(bucket, key)
                self._insert(bucket, finished.object, blob)
                self._outbox.add(finished.outbox)
        except BaseException:
            self._blobs.drop(blob)
            raise
        if replaced is not None:
            self._blobs.drop(replaced[1])

    async def head(self, bucket: str, key: str) -> R2Object | None:
        found = self._find(bucket, key)
        return None if found is None else found[0]

    async def get(
        self, bucket: str, key: str, offset: int, length: int | None
    ) -> tuple[R2Object, AsyncIterator[bytes]] | None:
        found = self._find(bucket, key)
        if found is None:
            return None
        stored, blob = found
        rest = max(0, stored.size - offset)
        length = rest if length is None else min(length, rest)
        return stored, self._blobs.read(blob, offset, length)

    async def delete(
        self, bucket: str, keys: Sequence[str], outbox: Callable[[R2Object], Sequence[Outgoing]]
    ) -> None:
        dropped: list[str] = []
        with self._database.transaction():
            for key in keys:
                found = self._find(bucket, key)
                if found is not None:
                    self._outbox.add(outbox(found[0]))
                    dropped.append(found[1])
                    self._database.run(
                        "DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, key.encode())
                    )
        for blob in dropped:
            self._blobs.drop(blob)

    async def list(self, bucket: str, prefix: str, after: str, limit: int) -> Sequence[R2Object]:
        low = prefix.encode()
        rows = self._database.run(
            "SELECT object FROM objects WHERE bucket = ? AND key >= ? AND key < ? AND key > ?"
            " ORDER BY key LIMIT ?",
            (bucket, low, low + b"\xff", after.encode(), limit),  # no UTF-8 has a byte 0xff
        )
        return [_decode(row[0]) for row in rows]

    async def usage(self, bucket: str) -> tuple[int, int]:
        rows = self._database.run(
            "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM objects WHERE bucket = ?", (bucket,)
        )
        return rows[0][0], rows[0][1]

    async def buckets(self) -> Sequence[str]:
        rows = self._database.run("SELECT DISTINCT bucket FROM objects ORDER BY bucket")
        return [row[0] for row in rows]

    async def outbox(self, limit: int) -> Sequence[Outgoing]:
        return self._outbox.oldest(limit)

    async def settle(self, ids: Sequence[str]) -> None:
        self._outbox.settle(ids)

    def _find(self, bucket: str, key: str) -> tuple[R2Object, str] | None:
        rows = self._database.run(
            "SELECT object, blob FROM objects WHERE bucket = ? AND key = ?", (bucket, key.encode())
        )
        return (_decode(rows[0][0]), rows[0][1]) if rows else None

    def _insert(self, bucket: str, stored: R2Object, blob: str) -> None:
        self._database.run(
            "INSERT OR REPLACE INTO objects (bucket, key, blob, size, object)"
            " VALUES (?, ?, ?, ?, ?)",
            (bucket, stored.key.encode(), blob, stored.size, msgspec.json.encode(stored)),
        )


def _decode(data: bytes) -> R2Object:
    return msgspec.json.decode(data, type=R2Object)


_: type[R2Driver] = IndexedR2

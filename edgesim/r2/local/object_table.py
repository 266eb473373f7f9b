"""Object metadata of a local store, in SQLite, with the outbox beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from edgesim.database import Database
from edgesim.errors import RunError
from edgesim.model import R2Object
from edgesim.r2.driver import OutboxEntry
from edgesim.r2.outbox import SCHEMA as OUTBOX_SCHEMA
from edgesim.r2.outbox import Outbox

# Keys are stored as UTF-8 bytes: SQLite then compares in R2's list order, and NUL is allowed.
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
CREATE TABLE IF NOT EXISTS usage (
  bucket TEXT PRIMARY KEY,
  objects INTEGER NOT NULL,
  bytes INTEGER NOT NULL
) WITHOUT ROWID;
"""
)


_BLOBS = 500  # rows of one read


class StoredObject(msgspec.Struct, frozen=True):
    """An object, its blob, and the blob's block checksums (None if it has none)."""

    object: R2Object
    blob: str
    sums: bytes | None


class ObjectTable:
    """The objects by bucket and key, each with the name of its blob, and totals by bucket.

    ``store`` and ``remove`` run in the caller's open transaction.
    """

    def __init__(self, database: Database) -> None:
        self.outbox = Outbox(database)
        self._database = database

    def find(self, bucket: str, key: str) -> StoredObject | None:
        """The object and its blob; None if there is no such object."""
        rows = self._database.run(
            "SELECT object, blob, sums FROM objects WHERE bucket = ? AND key = ?",
            (bucket, key.encode()),
        )
        return StoredObject(self._decode(rows[0][0]), rows[0][1], rows[0][2]) if rows else None

    def store(
        self, bucket: str, stored: R2Object, blob: str, sums: bytes, outbox: Sequence[OutboxEntry]
    ) -> list[str]:
        """Insert the object with its notifications; returns the blob that it replaces, if any."""
        replaced = self.find(bucket, stored.key)
        self._database.run(
            "INSERT OR REPLACE INTO objects (bucket, key, blob, size, object, sums)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (bucket, stored.key.encode(), blob, stored.size, msgspec.json.encode(stored), sums),
        )
        self.outbox.add(outbox)
        if replaced is None:
            self._count(bucket, 1, stored.size)
            return []
        self._count(bucket, 0, stored.size - replaced.object.size)
        return [replaced.blob]

    def remove(self, bucket: str, gone: R2Object, outbox: Sequence[OutboxEntry]) -> None:
        """Delete an object and add the notifications of the deletion."""
        self._database.run(
            "DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, gone.key.encode())
        )
        self._count(bucket, -1, -gone.size)
        self.outbox.add(outbox)

    def _count(self, bucket: str, objects: int, size: int) -> None:
        self._database.run(
            "INSERT INTO usage (bucket, objects, bytes) VALUES (?, ?, ?) ON CONFLICT (bucket)"
            " DO UPDATE SET objects = objects + excluded.objects, bytes = bytes + excluded.bytes",
            (bucket, objects, size),
        )

    def list(self, bucket: str, prefix: str, after: str, limit: int) -> Sequence[R2Object]:
        """Up to ``limit`` objects with ``prefix``, keys after ``after``, in order."""
        low, past = prefix.encode(), after.encode()
        # One lower bound: with two, SQLite may step through all keys between them.
        bound, begin = (">", past) if past >= low else (">=", low)
        rows = self._database.run(
            f"SELECT object FROM objects WHERE bucket = ? AND key {bound} ? AND key < ?"  # noqa: S608 (a constant)
            " ORDER BY key LIMIT ?",
            (bucket, begin, low + b"\xff", limit),  # 0xff never occurs in UTF-8
        )
        return [self._decode(row[0]) for row in rows]

    def usage(self, bucket: str) -> tuple[int, int]:
        """Number of objects and their total bytes."""
        rows = self._database.run("SELECT objects, bytes FROM usage WHERE bucket = ?", (bucket,))
        return (rows[0][0], rows[0][1]) if rows else (0, 0)

    def buckets(self) -> Sequence[str]:
        """Buckets that hold an object."""
        rows = self._database.run("SELECT bucket FROM usage WHERE objects > 0 ORDER BY bucket")
        return [row[0] for row in rows]

    def blobs(self) -> Iterator[Sequence[str]]:
        """The blobs of all objects, in batches."""
        bucket, key = "", b""
        while rows := self._database.run(
            "SELECT bucket, key, blob FROM objects WHERE (bucket, key) > (?, ?)"
            " ORDER BY bucket, key LIMIT ?",
            (bucket, key, _BLOBS),
        ):
            yield [row[2] for row in rows]
            bucket, key = rows[-1][:2]

    def _decode(self, data: bytes) -> R2Object:
        try:
            return msgspec.json.decode(data, type=R2Object)
        except msgspec.MsgspecError as error:
            cure = "stop edgesim, move the file away and start again: it is rebuilt from the blobs"
            raise RunError(f"{self._database.name}: damaged entry ({error})", cure) from error

"""What a store on this machine knows of its objects, in SQLite, with the outbox beside it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgesim.model import R2Object
from edgesim.r2.database import Database
from edgesim.r2.driver import Outgoing
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


class ObjectTable:
    """The objects by bucket and key, each with the name of its blob.

    ``store`` and ``remove`` are part of the transaction that the caller has open.
    """

    def __init__(self, database: Database) -> None:
        self.outbox = Outbox(database)
        self._database = database

    def find(self, bucket: str, key: str) -> tuple[R2Object, str] | None:
        """The object and its blob."""
        rows = self._database.run(
            "SELECT object, blob FROM objects WHERE bucket = ? AND key = ?", (bucket, key.encode())
        )
        return (_decode(rows[0][0]), rows[0][1]) if rows else None

    def store(
        self, bucket: str, stored: R2Object, blob: str, outbox: Sequence[Outgoing]
    ) -> list[str]:
        """Write the object down with its notifications; the blob of the one it replaces, if any."""
        replaced = self.find(bucket, stored.key)
        self._database.run(
            "INSERT OR REPLACE INTO objects (bucket, key, blob, size, object)"
            " VALUES (?, ?, ?, ?, ?)",
            (bucket, stored.key.encode(), blob, stored.size, msgspec.json.encode(stored)),
        )
        self.outbox.add(outbox)
        return [] if replaced is None else [replaced[1]]

    def remove(self, bucket: str, key: str, outbox: Sequence[Outgoing]) -> None:
        """Forget an object, with what is to be told of that."""
        self._database.run(
            "DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, key.encode())
        )
        self.outbox.add(outbox)

    def list(self, bucket: str, prefix: str, after: str, limit: int) -> Sequence[R2Object]:
        """Up to ``limit`` objects with ``prefix``, keys past ``after``, in order."""
        low = prefix.encode()
        rows = self._database.run(
            "SELECT object FROM objects WHERE bucket = ? AND key >= ? AND key < ? AND key > ?"
            " ORDER BY key LIMIT ?",
            (bucket, low, low + b"\xff", after.encode(), limit),  # no UTF-8 has a byte 0xff
        )
        return [_decode(row[0]) for row in rows]

    def usage(self, bucket: str) -> tuple[int, int]:
        """Number of objects and their bytes."""
        rows = self._database.run(
            "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM objects WHERE bucket = ?", (bucket,)
        )
        return rows[0][0], rows[0][1]

    def buckets(self) -> Sequence[str]:
        """Buckets that hold an object."""
        rows = self._database.run("SELECT DISTINCT bucket FROM objects ORDER BY bucket")
        return [row[0] for row in rows]

    def blobs(self) -> set[str]:
        """The blobs of all objects."""
        return {row[0] for row in self._database.run("SELECT blob FROM objects")}


def _decode(data: bytes) -> R2Object:
    return msgspec.json.decode(data, type=R2Object)

"""Uploads in parts on this machine: each part is a blob, and completing joins them into one.

Joining copies.  Objects of many blobs were dropped: a reader would have to keep all of them open,
up to 10,000, so that a delete does not take the rest of its object away.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing

import msgspec

from edgesim.clock import Clock
from edgesim.errors import RunError
from edgesim.model import R2Object, Stream
from edgesim.r2.blobs import Blobs
from edgesim.r2.database import Database
from edgesim.r2.driver import Assembled, Outgoing, Part, Uploads
from edgesim.r2.object_table import ObjectTable

SCHEMA = """
CREATE TABLE IF NOT EXISTS uploads (
  id TEXT PRIMARY KEY,
  bucket TEXT NOT NULL,
  key BLOB NOT NULL,
  begun_ms INTEGER NOT NULL,
  object BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (
  upload TEXT NOT NULL,
  number INTEGER NOT NULL,
  blob TEXT NOT NULL,
  size INTEGER NOT NULL,
  etag TEXT NOT NULL,
  PRIMARY KEY (upload, number)
) WITHOUT ROWID;
"""


class IndexedUploads:
    """The multipart uploads of a store over SQLite and blobs."""

    def __init__(
        self, database: Database, objects: ObjectTable, blobs: Blobs, clock: Clock
    ) -> None:
        self._database = database
        self._objects = objects
        self._blobs = blobs
        self._clock = clock
        self._joining: set[str] = set()

    def blobs(self) -> set[str]:
        """The blobs of all parts."""
        return {row[0] for row in self._database.run("SELECT blob FROM parts")}

    async def create(self, bucket: str, planned: R2Object) -> str:
        self._database.run(
            "INSERT INTO uploads (id, bucket, key, begun_ms, object) VALUES (?, ?, ?, ?, ?)",
            (
                planned.version,
                bucket,
                planned.key.encode(),
                self._clock.now_ms(),
                msgspec.json.encode(planned),
            ),
        )
        return planned.version

    async def put_part(
        self,
        bucket: str,
        key: str,
        upload: str,
        body: AsyncIterator[bytes],
        finish: Callable[[], Part],
    ) -> Part | None:
        if self._planned(bucket, key, upload) is None:
            return None
        blob = self._clock.hex_id()
        await self._blobs.write(blob, body)
        left_over = [blob]
        try:
            part = finish()
            with self._database.transaction():
                is_open = self._planned(bucket, key, upload) is not None
                if is_open:
                    left_over = self._store(upload, part, blob)
        except BaseException:
            self._blobs.drop(blob)
            raise
        for old in left_over:
            self._blobs.drop(old)
        return part if is_open else None

    def _store(self, upload: str, part: Part, blob: str) -> list[str]:
        """Write the part down; the blob of the one it replaces, if any."""
        replaced = self._database.run(
            "SELECT blob FROM parts WHERE upload = ? AND number = ?", (upload, part.number)
        )
        self._database.run(
            "INSERT OR REPLACE INTO parts (upload, number, blob, size, etag)"
            " VALUES (?, ?, ?, ?, ?)",
            (upload, part.number, blob, part.size, part.etag),
        )
        return [row[0] for row in replaced]

    async def parts(self, bucket: str, key: str, upload: str) -> Sequence[Part] | None:
        if self._planned(bucket, key, upload) is None:
            return None
        rows = self._database.run(
            "SELECT number, size, etag FROM parts WHERE upload = ? ORDER BY number", (upload,)
        )
        return [Part(*row) for row in rows]

    async def complete(
        self,
        bucket: str,
        key: str,
        upload: str,
        parts: Sequence[Part],
        assembled: Assembled,
        outbox: Callable[[R2Object], Sequence[Outgoing]],
    ) -> R2Object | None:
        planned = self._planned(bucket, key, upload)
        if planned is None:
            return None
        stored = msgspec.structs.replace(
            planned, size=assembled.size, etag=assembled.etag, uploaded=assembled.uploaded
        )
        names = [self._blob_of(upload, part) for part in parts]
        blob = self._clock.hex_id()
        self._joining.add(upload)  # from here on it takes no part and cannot be aborted
        try:
            async with aclosing(self._joined(names, parts)) as joined:
                await self._blobs.write(blob, joined)
            left_over = self._commit(bucket, stored, upload, blob, outbox(stored))
        finally:
            self._joining.discard(upload)
        for old in left_over:
            self._blobs.drop(old)
        return stored

    def _commit(
        self, bucket: str, stored: R2Object, upload: str, blob: str, outbox: Sequence[Outgoing]
    ) -> list[str]:
        """Make the joined blob the object's; the blobs that nothing names any more."""
        try:
            with self._database.transaction():
                left_over = self._objects.store(bucket, stored, blob, outbox)
                return left_over + self._forget([upload])
        except BaseException:
            self._blobs.drop(blob)
            raise

    async def abort(self, bucket: str, key: str, upload: str) -> None:
        if self._planned(bucket, key, upload) is not None:
            self._drop([upload])

    async def drop(self, bucket: str, before_ms: float) -> None:
        rows = self._database.run(
            "SELECT id FROM uploads WHERE bucket = ? AND begun_ms < ?", (bucket, before_ms)
        )
        self._drop([row[0] for row in rows if row[0] not in self._joining])

    def _drop(self, uploads: Sequence[str]) -> None:
        with self._database.transaction():
            blobs = self._forget(uploads)
        for blob in blobs:
            self._blobs.drop(blob)

    def _forget(self, uploads: Sequence[str]) -> list[str]:
        """Remove uploads and their parts from the tables; the blobs are the caller's to drop."""
        blobs: list[str] = []
        for upload in uploads:
            rows = self._database.run(
                "DELETE FROM parts WHERE upload = ? RETURNING blob", (upload,)
            )
            blobs += [row[0] for row in rows]
            self._database.run("DELETE FROM uploads WHERE id = ?", (upload,))
        return blobs

    def _planned(self, bucket: str, key: str, upload: str) -> R2Object | None:
        """The object that an upload in progress is to become."""
        if upload in self._joining:
            return None
        rows = self._database.run(
            "SELECT object FROM uploads WHERE id = ? AND bucket = ? AND key = ?",
            (upload, bucket, key.encode()),
        )
        return msgspec.json.decode(rows[0][0], type=R2Object) if rows else None

    def _blob_of(self, upload: str, part: Part) -> str:
        rows = self._database.run(
            "SELECT blob FROM parts WHERE upload = ? AND number = ? AND etag = ?",
            (upload, part.number, part.etag),
        )
        if not rows:
            raise RunError(f"r2 store: part {part.number} was replaced while it was to be joined")
        blob: str = rows[0][0]
        return blob

    async def _joined(
        self, names: Sequence[str], parts: Sequence[Part]
    ) -> AsyncGenerator[bytes, None]:
        for name, part in zip(names, parts, strict=True):
            async with aclosing(Stream(self._blobs.read(name, 0, part.size))) as stream:
                async for chunk in stream:
                    yield chunk


_: type[Uploads] = IndexedUploads

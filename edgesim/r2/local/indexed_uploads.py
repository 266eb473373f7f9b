"""Local multipart uploads: each part is a blob, and completing joins them into one.

Joining copies the bytes.  Objects of several blobs were rejected: a reader would have to keep all
of them open, up to 10,000, so that a delete cannot remove blobs that it has not read yet.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from functools import partial

import msgspec

from edgesim.clock import Clock
from edgesim.database import Database
from edgesim.errors import RunError
from edgesim.model import R2Object, Stream
from edgesim.r2.driver import Assembled, OutboxEntry, Part, UploadInProgress, Uploads
from edgesim.r2.local import labels
from edgesim.r2.local.blobs import Blobs, drop_all
from edgesim.r2.local.block_sums import BlockSums, read_blob
from edgesim.r2.local.labels import Label, PartOf
from edgesim.r2.local.object_table import ObjectTable

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


class _Piece(msgspec.Struct, frozen=True):
    """A part to be joined: its blob, its bytes, and its block checksums."""

    blob: str
    size: int
    sums: bytes | None


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

    def blobs(self) -> Iterator[Sequence[str]]:
        """The blobs of all parts, in batches."""
        upload, number = "", 0
        while rows := self._database.run(
            "SELECT upload, number, blob FROM parts WHERE (upload, number) > (?, ?)"
            " ORDER BY upload, number LIMIT 500",
            (upload, number),
        ):
            yield [row[2] for row in rows]
            upload, number = rows[-1][:2]

    async def create(self, bucket: str, planned: R2Object) -> str:
        upload, now_ms = planned.version, self._clock.now_ms()
        await self._database.write(partial(self.restore, bucket, planned, upload, now_ms))
        return upload

    async def in_progress(self, bucket: str, prefix: str) -> Sequence[UploadInProgress]:
        start = prefix.encode()
        rows = self._database.run(
            "SELECT id, object FROM uploads WHERE bucket = ? AND substr(key, 1, ?) = ?",
            (bucket, len(start), start),
        )
        return [
            UploadInProgress(row[0], msgspec.json.decode(row[1], type=R2Object))
            for row in rows
            if row[0] not in self._joining
        ]

    def restore(self, bucket: str, planned: R2Object, upload: str, begun_ms: int) -> None:
        """Insert an upload if it is missing, in the caller's transaction."""
        self._database.run(
            "INSERT OR IGNORE INTO uploads (id, bucket, key, begun_ms, object)"
            " VALUES (?, ?, ?, ?, ?)",
            (upload, bucket, planned.key.encode(), begun_ms, msgspec.json.encode(planned)),
        )

    async def put_part(
        self,
        bucket: str,
        key: str,
        upload: str,
        body: AsyncIterator[bytes],
        finish: Callable[[], Part],
    ) -> Part | None:
        planned = self._planned(bucket, key, upload)
        if planned is None:
            return None
        begun_ms = self._begun_ms(upload)
        blob, sums = self._clock.hex_id(), BlockSums()
        parts: list[Part] = []

        def label() -> bytes:
            parts.append(finish())
            belongs = PartOf(upload, begun_ms, parts[0])
            return labels.encode(Label(bucket, planned, sums.value(), part_of=belongs))

        async with aclosing(sums.passing(body)) as passing:
            await self._blobs.write(blob, passing, label)
        [part] = parts

        def commit() -> list[str] | None:
            if self._planned(bucket, key, upload) is None:
                return None
            return self.store(upload, part, blob, sums.value())

        try:
            left_over = await self._database.write(commit)
        except BaseException:
            self._blobs.drop(blob)
            raise
        await drop_all(self._blobs, [blob] if left_over is None else left_over)
        return None if left_over is None else part

    def store(self, upload: str, part: Part, blob: str, sums: bytes) -> list[str]:
        """Insert the part; returns the blob of the part it replaces, if any."""
        replaced = self._database.run(
            "SELECT blob FROM parts WHERE upload = ? AND number = ?", (upload, part.number)
        )
        self._database.run(
            "INSERT OR REPLACE INTO parts (upload, number, blob, size, etag, sums)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (upload, part.number, blob, part.size, part.etag, sums),
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
        outbox: Callable[[R2Object], Sequence[OutboxEntry]],
    ) -> R2Object | None:
        planned = self._planned(bucket, key, upload)
        if planned is None:
            return None
        stored = msgspec.structs.replace(
            planned, size=assembled.size, etag=assembled.etag, uploaded=assembled.uploaded
        )
        pieces = self._pieces(upload, parts)
        blob, sums, messages = self._clock.hex_id(), BlockSums(), outbox(stored)

        def label() -> bytes:
            return labels.encode(Label(bucket, stored, sums.value(), messages))

        self._joining.add(upload)  # from here on it accepts no part and cannot be aborted
        try:
            async with (
                aclosing(self._joined(pieces)) as joined,
                aclosing(sums.passing(joined)) as passing,
            ):
                await self._blobs.write(blob, passing, label)
            left_over = await self._commit(bucket, stored, upload, blob, sums.value(), messages)
        finally:
            self._joining.discard(upload)
        await drop_all(self._blobs, left_over)
        return stored

    async def _commit(
        self,
        bucket: str,
        stored: R2Object,
        upload: str,
        blob: str,
        sums: bytes,
        outbox: Sequence[OutboxEntry],
    ) -> list[str]:
        """Make the joined blob the object's blob; returns the blobs no longer referenced."""

        def commit() -> list[str]:
            left_over = self._objects.store(bucket, stored, blob, sums, outbox)
            return left_over + self._forget([upload])

        try:
            return await self._database.write(commit)
        except BaseException:
            self._blobs.drop(blob)
            raise

    async def abort(self, bucket: str, key: str, upload: str) -> None:
        if self._planned(bucket, key, upload) is not None:
            await self._drop([upload])

    async def drop(self, bucket: str, before_ms: float) -> None:
        rows = self._database.run(
            "SELECT id FROM uploads WHERE bucket = ? AND begun_ms < ?", (bucket, before_ms)
        )
        for row in rows:
            if row[0] not in self._joining:
                await self._drop([row[0]])

    async def _drop(self, uploads: Sequence[str]) -> None:
        blobs = await self._database.write(partial(self._forget, uploads))
        await drop_all(self._blobs, blobs)

    def _forget(self, uploads: Sequence[str]) -> list[str]:
        """Delete uploads and their parts from the tables; returns blobs for the caller to drop."""
        blobs: list[str] = []
        for upload in uploads:
            rows = self._database.run(
                "DELETE FROM parts WHERE upload = ? RETURNING blob", (upload,)
            )
            blobs += [row[0] for row in rows]
            self._database.run("DELETE FROM uploads WHERE id = ?", (upload,))
        return blobs

    def _planned(self, bucket: str, key: str, upload: str) -> R2Object | None:
        """The planned object of an upload in progress."""
        if upload in self._joining:
            return None
        rows = self._database.run(
            "SELECT object FROM uploads WHERE id = ? AND bucket = ? AND key = ?",
            (upload, bucket, key.encode()),
        )
        return msgspec.json.decode(rows[0][0], type=R2Object) if rows else None

    def _begun_ms(self, upload: str) -> int:
        [(begun_ms,)] = self._database.run("SELECT begun_ms FROM uploads WHERE id = ?", (upload,))
        return int(begun_ms)

    def _pieces(self, upload: str, parts: Sequence[Part]) -> list[_Piece]:
        rows = self._database.run(
            "SELECT number, etag, blob, size, sums FROM parts WHERE upload = ?", (upload,)
        )
        stored = {(row[0], row[1]): _Piece(*row[2:]) for row in rows}
        pieces = []
        for part in parts:
            piece = stored.get((part.number, part.etag))
            if piece is None:
                raise RunError(
                    f"r2 store: part {part.number} was replaced while it was to be joined"
                )
            pieces.append(piece)
        return pieces

    async def _joined(self, pieces: Sequence[_Piece]) -> AsyncGenerator[bytes, None]:
        for piece in pieces:
            chunks = read_blob(self._blobs, piece.blob, piece.sums, piece.size, 0, piece.size)
            async with aclosing(Stream(chunks)) as stream:
                async for chunk in stream:
                    yield chunk


_: type[Uploads] = IndexedUploads

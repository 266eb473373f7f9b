"""Objects on this machine: what is known of each in SQLite, its bytes in blobs beside it.

One transaction commits an object together with its notifications.  Blobs are written whole before
the commit that makes them an object's; what a crash leaves behind without an object is removed at
the next start.  The object's row names its blob, so nothing needs renaming, and a reader keeps the
blob that it opened.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from edgesim.clock import Clock
from edgesim.model import R2Object
from edgesim.r2 import indexed_uploads, object_table
from edgesim.r2.blobs import Blobs
from edgesim.r2.database import Database
from edgesim.r2.driver import ANYTHING, Anything, Expected, Finished, Outgoing, R2Driver
from edgesim.r2.indexed_uploads import IndexedUploads
from edgesim.r2.object_table import ObjectTable

SCHEMA = object_table.SCHEMA + indexed_uploads.SCHEMA


class IndexedR2:
    """An R2 driver over SQLite and blobs."""

    def __init__(self, database: Database, blobs: Blobs, clock: Clock) -> None:
        self._database = database
        self._objects = ObjectTable(database)
        self._blobs = blobs
        self._clock = clock
        self.uploads = IndexedUploads(database, self._objects, blobs, clock)

    def remove_orphans(self) -> None:
        """Drop blobs that no object and no part names; only while nobody writes."""
        named = self._objects.blobs() | self.uploads.blobs()
        for name in self._blobs.names():
            if name not in named:
                self._blobs.drop(name)

    async def put(
        self,
        bucket: str,
        key: str,
        body: AsyncIterator[bytes],
        finish: Callable[[], Finished],
        expected: Expected = ANYTHING,
    ) -> bool:
        blob = self._clock.hex_id()
        await self._blobs.write(blob, body)
        left_over = [blob]
        try:
            finished = finish()
            with self._database.transaction():
                is_expected = self._is_there(bucket, key, expected)
                if is_expected:
                    left_over = self._objects.store(bucket, finished.object, blob, finished.outbox)
        except BaseException:
            self._blobs.drop(blob)
            raise
        self._drop(left_over)
        return is_expected

    async def head(self, bucket: str, key: str) -> R2Object | None:
        found = self._objects.find(bucket, key)
        return None if found is None else found[0]

    async def get(
        self, bucket: str, key: str, offset: int, length: int | None
    ) -> tuple[R2Object, AsyncIterator[bytes]] | None:
        found = self._objects.find(bucket, key)
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
                found = self._objects.find(bucket, key)
                if found is not None:
                    self._objects.remove(bucket, key, outbox(found[0]))
                    dropped.append(found[1])
        self._drop(dropped)

    async def list(self, bucket: str, prefix: str, after: str, limit: int) -> Sequence[R2Object]:
        return self._objects.list(bucket, prefix, after, limit)

    async def usage(self, bucket: str) -> tuple[int, int]:
        return self._objects.usage(bucket)

    async def buckets(self) -> Sequence[str]:
        return self._objects.buckets()

    async def has(self, bucket: str) -> bool:
        return True

    async def drop(self, bucket: str) -> None:
        """See R2Driver; a bucket is no more than its objects."""

    async def outbox(self, limit: int) -> Sequence[Outgoing]:
        return self._objects.outbox.oldest(limit)

    async def settle(self, ids: Sequence[str]) -> None:
        self._objects.outbox.settle(ids)

    def _is_there(self, bucket: str, key: str, expected: Expected) -> bool:
        if isinstance(expected, Anything):
            return True
        found = self._objects.find(bucket, key)
        if found is None or expected is None:
            return found is None and expected is None
        return found[0].version == expected.version

    def _drop(self, blobs: Sequence[str]) -> None:
        for blob in blobs:
            self._blobs.drop(blob)


_: type[R2Driver] = IndexedR2

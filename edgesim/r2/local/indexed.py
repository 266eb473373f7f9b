"""Local object store: metadata in SQLite, bytes in blobs beside it.

One transaction commits an object together with its notifications.  A blob is written completely
before the commit that references it; unreferenced blobs that a crash leaves behind are removed at
the next start.  The object's row names its blob, so no file is renamed, and a reader keeps the blob
that it opened.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from itertools import chain

import anyio.lowlevel
import structlog

from edgesim.clock import Clock
from edgesim.database import Database
from edgesim.model import R2Object
from edgesim.r2.driver import ANYTHING, Anything, Expected, Finished, OutboxEntry, R2Driver
from edgesim.r2.local import labels
from edgesim.r2.local.blobs import Blobs, all_names, drop_all
from edgesim.r2.local.block_sums import BlockSums, read_blob
from edgesim.r2.local.indexed_uploads import IndexedUploads
from edgesim.r2.local.labels import Label
from edgesim.r2.local.object_table import ObjectTable

_DELETES = 50  # keys deleted in one transaction
_LISTED = 200  # objects read between two checkpoints

_log = structlog.get_logger("edgesim.r2")


class IndexedR2:
    """An R2 driver over SQLite and blobs."""

    def __init__(self, database: Database, blobs: Blobs, clock: Clock) -> None:
        self._database = database
        self._objects = ObjectTable(database)
        self._blobs = blobs
        self._clock = clock
        self.uploads = IndexedUploads(database, self._objects, blobs, clock)

    async def remove_orphans(self) -> None:
        """Drop blobs that no object and no part references; call only while no task writes.

        If the index is damaged and an object's blob is missing, an orphan that holds the same
        version becomes its blob again.
        """
        orphans = await all_names(self._blobs)
        there = frozenset(orphans)
        for named in chain(self._objects.blobs(), self.uploads.blobs()):
            orphans.difference_update(named)
            await anyio.lowlevel.checkpoint()
        for name in sorted(orphans):
            if not self._give_back(name, there):
                self._blobs.drop(name)
            await anyio.lowlevel.checkpoint()

    def _give_back(self, name: str, there: frozenset[str]) -> bool:
        label = labels.decode(self._blobs.label(name))
        if label is None or label.part_of is not None:
            return False
        found = self._objects.find(label.bucket, label.object.key)
        if found is None or found.blob in there or found.object.version != label.object.version:
            return False
        _log.error("r2 index damaged, object restored", bucket=label.bucket, key=label.object.key)
        with self._database.transaction():
            self._objects.store(label.bucket, label.object, name, label.sums, ())
        return True

    async def put(
        self,
        bucket: str,
        key: str,
        body: AsyncIterator[bytes],
        finish: Callable[[], Finished],
        expected: Expected = ANYTHING,
    ) -> bool:
        blob, sums = self._clock.hex_id(), BlockSums()
        results: list[Finished] = []

        def label() -> bytes:
            results.append(finish())
            messages = results[0].outbox
            return labels.encode(Label(bucket, results[0].object, sums.value(), messages))

        async with aclosing(sums.passing(body)) as passing:
            await self._blobs.write(blob, passing, label)
        [finished] = results

        def commit() -> list[str] | None:
            if not self._is_there(bucket, key, expected):
                return None
            return self._objects.store(bucket, finished.object, blob, sums.value(), finished.outbox)

        try:
            left_over = await self._database.write(commit)
        except BaseException:
            self._blobs.drop(blob)
            raise
        is_expected = left_over is not None
        await drop_all(self._blobs, [blob] if left_over is None else left_over)
        return is_expected

    async def head(self, bucket: str, key: str) -> R2Object | None:
        found = self._objects.find(bucket, key)
        return None if found is None else found.object

    async def get(
        self, bucket: str, key: str, offset: int, length: int | None
    ) -> tuple[R2Object, AsyncIterator[bytes]] | None:
        found = self._objects.find(bucket, key)
        if found is None:
            return None
        size = found.object.size
        rest = max(0, size - offset)
        length = rest if length is None else min(length, rest)
        return found.object, read_blob(self._blobs, found.blob, found.sums, size, offset, length)

    async def delete(
        self, bucket: str, keys: Sequence[str], outbox: Callable[[R2Object], Sequence[OutboxEntry]]
    ) -> None:
        for start in range(0, len(keys), _DELETES):
            if start:
                await anyio.lowlevel.checkpoint()
            some = keys[start : start + _DELETES]
            dropped = await self._database.write(partial(self._remove, bucket, some, outbox))
            await drop_all(self._blobs, dropped)

    def _remove(
        self, bucket: str, keys: Sequence[str], outbox: Callable[[R2Object], Sequence[OutboxEntry]]
    ) -> Sequence[str]:
        """Remove objects in the caller's transaction; returns their blobs."""
        dropped: Sequence[str] = []
        for key in keys:
            found = self._objects.find(bucket, key)
            if found is not None:
                self._objects.remove(bucket, found.object, outbox(found.object))
                dropped = [*dropped, found.blob]
        return dropped

    async def list(self, bucket: str, prefix: str, after: str, limit: int) -> Sequence[R2Object]:
        found: list[R2Object] = []
        while len(found) < limit:
            wanted = min(_LISTED, limit - len(found))
            page = self._objects.list(bucket, prefix, found[-1].key if found else after, wanted)
            found += page
            if len(page) < wanted:
                break
            await anyio.lowlevel.checkpoint()
        return found

    async def usage(self, bucket: str) -> tuple[int, int]:
        return self._objects.usage(bucket)

    async def buckets(self) -> Sequence[str]:
        return self._objects.buckets()

    async def has(self, bucket: str) -> bool:
        return True

    async def drop(self, bucket: str) -> None:
        """See R2Driver.  No effect: a bucket exists only through its objects."""

    @property
    def in_doubt(self) -> bool:
        """Always False: a change and its notifications are one transaction."""
        return False

    async def outbox(self, limit: int) -> Sequence[OutboxEntry]:
        return self._objects.outbox.oldest(limit)

    async def settle(self, ids: Sequence[str]) -> None:
        await self._objects.outbox.settle(ids)

    def _is_there(self, bucket: str, key: str, expected: Expected) -> bool:
        if isinstance(expected, Anything):
            return True
        found = self._objects.find(bucket, key)
        if found is None or expected is None:
            return found is None and expected is None
        return found.object.version == expected.version


_: type[R2Driver] = IndexedR2

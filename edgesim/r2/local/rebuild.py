"""Rebuilding the index of a local store from the labels of its blobs.

Every notification is sent again: only the lost index recorded which ones were delivered.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import anyio.lowlevel
import structlog

from edgesim import durable
from edgesim.clock import Clock
from edgesim.database import Database
from edgesim.r2.local import labels
from edgesim.r2.local.blobs import Blobs, all_names
from edgesim.r2.local.indexed_uploads import IndexedUploads
from edgesim.r2.local.labels import Label
from edgesim.r2.local.object_table import ObjectTable
from edgesim.r2.local.schema import SCHEMA, prepare

_BATCH = 50

log = structlog.get_logger("edgesim.r2")


async def rebuild(path: Path, blobs: Blobs, clock: Clock) -> None:
    """Write a new index to ``path``; it appears there once it is complete.

    Blobs without a label are moved to a folder from which nothing removes them.
    """
    new = path.with_name(f"{path.name}.rebuilt")
    for file in (new, new.with_name(f"{new.name}-wal"), new.with_name(f"{new.name}-shm")):
        durable.remove(file)
    with closing(Database(new, SCHEMA)) as database:
        prepare(database)
        index = _Index(database, blobs, clock)
        for number, name in enumerate(await all_names(blobs)):
            index.add(name)
            if number % _BATCH == 0:
                index.write()
                await anyio.lowlevel.checkpoint()
        index.write()
    durable.rename(new, path)
    log.error(
        "r2 index rebuilt from the blobs",
        file=str(path),
        objects=index.objects,
        without_label=index.unknown,
    )


class _Index:
    """The new index; entries are written in batches."""

    def __init__(self, database: Database, blobs: Blobs, clock: Clock) -> None:
        self.objects = 0
        self.unknown = 0
        self._database = database
        self._objects = ObjectTable(database)
        self._uploads = IndexedUploads(database, self._objects, blobs, clock)
        self._blobs = blobs
        self._waiting: list[tuple[str, Label]] = []

    def add(self, name: str) -> None:
        """Queue a blob for the next ``write``; unlabelled ones are set aside."""
        label = labels.decode(self._blobs.label(name))
        if label is None:
            self.unknown += 1
            self._blobs.keep(name)
        else:
            self._waiting.append((name, label))

    def write(self) -> None:
        """Commit the queued entries."""
        with self._database.transaction():
            for name, label in self._waiting:
                self._write(name, label)
        self._waiting = []

    def _write(self, name: str, label: Label) -> None:
        if label.part_of is not None:
            upload = label.part_of.upload
            self._uploads.restore(label.bucket, label.object, upload, label.part_of.begun_ms)
            self._uploads.store(upload, label.part_of.part, name, label.sums)
            return
        found = self._objects.find(label.bucket, label.object.key)
        if found is None or found.object.uploaded <= label.object.uploaded:
            self._objects.store(label.bucket, label.object, name, label.sums, label.outbox)
            self.objects += found is None

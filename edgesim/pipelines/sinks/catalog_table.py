"""The R2 Data Catalog sink: each window is one snapshot of an Iceberg table, with one file.

The snapshot's summary has the window's id: a window that is written again after a crash is found
there, and is not stored twice.  A file that no snapshot has yet is written again, under its name.
"""

from __future__ import annotations

import os
import struct
from hashlib import blake2b
from pathlib import Path

import structlog

from edgesim.clock import Clock
from edgesim.config.sinks import MB, SinkConfig
from edgesim.model import Stream
from edgesim.pipelines.iceberg import wire as iceberg
from edgesim.pipelines.iceberg.catalog import (
    INGEST_COLUMN,
    NAMESPACE_SEPARATOR,
    Catalog,
    CatalogError,
    CatalogState,
    LoadedTable,
    head_of,
)
from edgesim.pipelines.iceberg.engine import TableError
from edgesim.pipelines.sinks.json_files import file_metadata
from edgesim.pipelines.sinks.sql_files import content_of
from edgesim.pipelines.sinks.statement import SinkStatement
from edgesim.pipelines.sql.wire import FileFormat
from edgesim.pipelines.streams.window import LAST_SEGMENT, StreamWindow, Written, segment_number

WINDOW = "edgesim-window"
"""Key of a snapshot's summary: the id of the window that it has."""
SINK = "edgesim.sink"
"""Property of a table: the sink that made it."""

_FOOTER_END = struct.Struct("<I4s")
"""The end of a Parquet file: the length of its metadata before it, and ``PAR1``."""

log = structlog.get_logger()


class CatalogTable:
    """Writes the result of one statement into a table, which it creates."""

    def __init__(
        self,
        name: str,
        config: SinkConfig,
        catalog: Catalog,
        statement: SinkStatement,
        clock: Clock,
    ) -> None:
        self.name = name
        self.config = config
        self._catalog = catalog
        self._namespace = config.namespace.replace(".", NAMESPACE_SEPARATOR)
        self._statement = statement
        self._clock = clock

    async def prepare(self) -> bytes:
        """Create the table unless it is there; returns the schema of its files.

        TableError if the table is another sink's, or has other columns than the statement.
        """
        columns = await self._statement.schema()
        try:
            loaded = await self._catalog.load(self._namespace, self.config.table)
        except CatalogError as error:
            if error.status != 404:
                raise
            loaded = await self._create(columns)
        head = head_of(loaded.content)
        self._catalog.check_place(head.location)
        owner = head.properties.get(SINK)
        place = f"table {self.config.namespace}.{self.config.table} of bucket {self.config.bucket}"
        if owner != self.name:
            made = f"was made by sink {owner!r}" if owner else "was not made by this sink"
            problem = f"{place} exists and {made}; name another table, or drop that one"
            raise TableError("columns", problem)
        asked = iceberg.DescribeTable(loaded.content, columns, INGEST_COLUMN)
        try:
            return (await self._catalog.engine.ask(asked, iceberg.TableColumns)).schema
        except TableError as error:
            problem = (
                f"{place} has other columns than the statement: it {error.problem}"
                if error.kind == "columns"
                else f"{place} has damaged metadata: {error.problem}"
            )
            raise TableError(
                error.kind, f"{problem}; name another table, or drop that one"
            ) from error

    async def write(self, window: StreamWindow) -> Written:
        """Store the window's rows as a snapshot, unless an earlier run has."""
        if window.rows == 0:
            return Written()
        schema = await self.prepare()
        loaded = await self._catalog.load(self._namespace, self.config.table)
        if (last := _last_of(loaded, window)) is not None:
            self._statement.forget(window)
            return Written(last=last)
        ingest_us = int(window.opened_at.timestamp() * 1_000_000)
        form = FileFormat(
            "table",
            self.config.compression,
            self.config.target_row_group_size * MB,
            schema,
            INGEST_COLUMN,
            ingest_us,
        )
        path, done, drops = await self._statement.transform(window, form)
        try:
            if done.rows:
                day = window.opened_at.strftime("%Y-%m-%d")
                root = head_of(loaded.content).location
                location = f"{root}/data/{INGEST_COLUMN}_day={day}/{window.id}.parquet"
                await self._catalog.bucket.put(
                    self._catalog.key_of(location),
                    Stream(content_of(path)),
                    http_metadata=file_metadata(self.config),
                    custom_metadata=window.metadata,
                )
                await self._commit(window, path, location)
        finally:
            path.unlink(missing_ok=True)
        self._statement.forget(window)
        return Written(done.rows, done.bytes, 1 if done.rows else 0, drops=drops)

    async def _create(self, columns: bytes) -> LoadedTable:
        def new_table(location: str, table_id: str) -> iceberg.NewTable:
            now_ms = self._clock.now_ms()
            properties = {SINK: self.name}
            return iceberg.NewTable(columns, INGEST_COLUMN, properties, location, table_id, now_ms)

        def add_namespace(state: CatalogState) -> None:
            state.namespaces.setdefault(self._namespace, {})

        await self._catalog.change(add_namespace)
        try:
            return await self._catalog.create(self._namespace, self.config.table, new_table)
        except CatalogError as error:
            if error.kind != "AlreadyExistsException":
                raise
            return await self._catalog.load(self._namespace, self.config.table)  # another node's

    async def _commit(self, window: StreamWindow, path: Path, location: str) -> None:
        footer, size = _footer(path)
        root = location.rpartition("/data/")[0]

        def snapshot(
            loaded: LoadedTable, manifest_list: bytes, now_ms: int
        ) -> iceberg.AppendFile | None:
            if _last_of(loaded, window) is not None:
                return None
            number = _snapshot_id(window.id)
            return iceberg.AppendFile(
                loaded.content,
                loaded.location,
                manifest_list,
                footer,
                size,
                location,
                f"{root}/metadata/{window.id}-m0.avro",
                f"{root}/metadata/snap-{number}-0-{window.id}.avro",
                number,
                {WINDOW: window.id, LAST_SEGMENT: str(window.last)},
                now_ms,
            )

        await self._catalog.append(self._namespace, self.config.table, window.id, snapshot)
        log.info("sink wrote file", sink=self.name, key=location, rows=window.rows)


def _footer(path: Path) -> tuple[bytes, int]:
    """The end of a Parquet file, which has the metadata, and the size of the file."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size - _FOOTER_END.size)
        length, _ = _FOOTER_END.unpack(file.read())
        file.seek(size - _FOOTER_END.size - length)
        return file.read(), size


def _last_of(loaded: LoadedTable, window: StreamWindow) -> int | None:
    """The last segment of the window, if a snapshot of the table has it."""
    for each in reversed(head_of(loaded.content).snapshots):
        if each.summary.get(WINDOW) == window.id:
            return segment_number(each.summary.get(LAST_SEGMENT)) or window.last
    return None


def _snapshot_id(window_id: str) -> int:
    digest = blake2b(window_id.encode(), digest_size=8, person=b"snapshot").digest()
    return int.from_bytes(digest, "big") >> 1 or 1

"""A bucket with an Iceberg catalog and the engines of its tables, without a project."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from edgesim import drivers
from edgesim.clock import Clock
from edgesim.config.pipelines import Field
from edgesim.config.sinks import SinkConfig
from edgesim.errors import RunError
from edgesim.pipelines.iceberg.catalog import Catalog
from edgesim.pipelines.iceberg.engine import IcebergEngine
from edgesim.pipelines.segment import Segment
from edgesim.pipelines.sinks.catalog_table import CatalogTable
from edgesim.pipelines.sinks.statement import SinkStatement
from edgesim.pipelines.sql.engine import SqlEngine
from edgesim.pipelines.sql.wire import Query
from edgesim.pipelines.streams.window import StreamWindow
from edgesim.r2.bucket import Bucket
from edgesim.r2.notifications import Notifications
from tests.iceberg_files import table_rows

PLAY = {
    "id": "a",
    "n": -5,
    "at": "2026-11-29T10:00:00.123456789Z",
    "tags": ["x", None],
    "geo": {"city": "K\u00f6ln", "height": 1.5},
}
FIELDS = [
    Field("string", "id", required=True),
    Field("int32", "n"),
    Field("timestamp", "at", unit="nanosecond"),
    Field("list", "tags", items=Field("string")),
    Field("struct", "geo", fields=[Field("string", "city"), Field("float32", "height")]),
]
CONFIG = SinkConfig(
    "lake",
    type="r2-data-catalog",
    compression="zstd",
    roll_interval=60,
    namespace="games.eu",
    table="plays",
)


class BrokenBucket(Bucket):
    """A bucket of which the put with this number fails, before or after it took effect."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.failing = 0
        self.after = False
        self.puts = 0

    async def put(self, key: str, body: Any, **options: Any) -> Any:
        self.puts += 1
        if self.puts != self.failing:
            return await super().put(key, body, **options)
        if self.after:
            await super().put(key, body, **options)
        raise RunError("the store is gone")


class Lake:
    """A bucket with its catalog, and the engines of its tables."""

    def __init__(
        self,
        bucket: BrokenBucket,
        folder: Path,
        clock: Clock,
        engines: tuple[IcebergEngine, SqlEngine],
    ) -> None:
        self.bucket = bucket
        self.folder = folder
        self.clock = clock
        self.iceberg, self.sql = engines
        self.windows = 0

    def catalog(self) -> Catalog:
        return Catalog(self.bucket, self.iceberg, self.clock)

    def sink(
        self, name: str = "table", sql: str = "SELECT * FROM s", **changes: Any
    ) -> CatalogTable:
        query = Query(sql, "s", FIELDS, "2026-01-01T00:00:00")
        config = msgspec.structs.replace(CONFIG, **changes)
        statement = SinkStatement(name, query, self.sql, self.folder / "cuts", self.clock)
        return CatalogTable(name, config, self.catalog(), statement, self.clock)

    def window(self, *rows: dict[str, Any]) -> StreamWindow:
        self.windows += 1
        path = self.folder / f"{self.windows:012d}.wal"
        segment = Segment.create(path, self.clock.now(), self.clock.uuid())
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        segment.append(lines.encode(), len(rows))
        return StreamWindow("flow/1 table", [segment])

    async def rows(self) -> list[dict[str, Any]]:
        return await table_rows(self.catalog(), "games\x1feu", "plays")


@asynccontextmanager
async def opened_lake(
    url: str, folder: Path, engines: tuple[IcebergEngine, SqlEngine]
) -> AsyncIterator[Lake]:
    clock = Clock()
    async with drivers.opener("r2", url)(url, clock, folder / "local") as driver:
        bucket = BrokenBucket("lake", driver, clock, Notifications({}, clock, "account"))
        yield Lake(bucket, folder, clock, engines)

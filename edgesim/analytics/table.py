"""The table of a dataset: a sink of a stream, which inserts each window once.

All datasets are tables of one database, beside those of the project.  An insert carries its
window's id as deduplication token, so that a window is stored once if its insert is repeated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import urlencode

import anyio.lowlevel

from edgesim.clickhouse.gateway import Gateway
from edgesim.clickhouse.statements import named, quoted
from edgesim.errors import EdgesimError
from edgesim.model import Body, HttpRequest, Stream, read_all
from edgesim.pipelines.streams.window import StreamWindow, Written

DATABASE = "analytics_engine"
GATEWAY_URL = "http://clickhouse/"
BLOBS_MAX, DOUBLES_MAX = 20, 20
_TOKENS = 10_000
"""Latest inserts whose tokens the table keeps; more than can be repeated."""


class Rolling(NamedTuple):
    """The limits of a table's windows: ClickHouse wants few, large inserts."""

    roll_interval: float = 5.0
    roll_bytes: float = 8_000_000


class AnalyticsTable:
    """Inserts the windows of one dataset; creates the table before the first one."""

    config = Rolling()

    def __init__(self, dataset: str, gateway: Gateway) -> None:
        self.name = f"{DATABASE}.{dataset}"
        self._dataset = dataset
        self._gateway = gateway
        self._exists = False

    async def write(self, window: StreamWindow) -> Written:
        """Insert the rows of a window."""
        if not self._exists:
            await self._run(f"CREATE DATABASE IF NOT EXISTS {named(DATABASE)}")
            await self._run(_definition(self._dataset))
            self._exists = True
        insert = f"INSERT INTO {place_of(self._dataset)} FORMAT JSONEachRow"
        try:
            await self._run(insert, Stream(_chunks(window)), insert_deduplication_token=window.id)
        except EdgesimError:
            self._exists = False  # it may have been dropped
            raise
        return Written(window.rows, window.bytes, 1)

    async def _run(self, sql: str, data: Body = b"", **settings: str) -> None:
        url = f"{GATEWAY_URL}?{urlencode({'query': sql} | settings)}"
        answer = await self._gateway.fetch(HttpRequest("POST", url, [], data))
        said = (await read_all(answer.body)).decode("utf-8", "replace")
        if answer.status != 200:
            first = said.partition("\n")[0]
            raise EdgesimError(f"{self.name}: {first[:500]}")


def place_of(dataset: str) -> str:
    """The table of a dataset, as SQL."""
    return f"{named(DATABASE)}.{named(dataset)}"


def _definition(dataset: str) -> str:
    columns = [
        f"dataset String DEFAULT {quoted(dataset)}",
        "timestamp DateTime",
        "_sample_interval UInt32 DEFAULT 1",
        "index1 String",
        *(f"blob{number} String" for number in range(1, BLOBS_MAX + 1)),
        *(f"double{number} Float64" for number in range(1, DOUBLES_MAX + 1)),
    ]
    return (
        f"CREATE TABLE IF NOT EXISTS {place_of(dataset)} ({', '.join(columns)}) ENGINE = MergeTree "
        "PARTITION BY toYYYYMM(timestamp) ORDER BY (index1, timestamp) "
        f"SETTINGS non_replicated_deduplication_window = {_TOKENS}"
    )


async def _chunks(window: StreamWindow) -> AsyncIterator[bytes]:
    for lines in window.lines():
        await anyio.lowlevel.checkpoint()  # a large window must not block other tasks
        yield lines

"""The R2 sink for the results of SQL, as JSON or Parquet: each window becomes one file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio.lowlevel
import structlog

from edgesim.config.sinks import SinkConfig
from edgesim.model import Stream
from edgesim.pipelines.pipeline import CHUNK_BYTES, ObjectStore
from edgesim.pipelines.sinks.json_files import file_key, file_metadata
from edgesim.pipelines.sinks.statement import SinkStatement
from edgesim.pipelines.sql.queries import format_of
from edgesim.pipelines.streams.window import StreamWindow, Written

log = structlog.get_logger()


class SqlFiles:
    """Writes the result of one statement; a window that is written again is the same file."""

    def __init__(
        self, name: str, config: SinkConfig, bucket: ObjectStore, statement: SinkStatement
    ) -> None:
        self.name = name
        self.config = config
        self._bucket = bucket
        self._statement = statement

    async def write(self, window: StreamWindow) -> Written:
        """Store the window's file, unless an earlier run has, or no row is left of it."""
        key = file_key(self.config, window)
        if window.rows == 0:
            return Written()
        if (found := await self._bucket.head(key)) is not None:
            self._statement.forget(window)
            return Written(last=window.last_in(found))
        path, done, drops = await self._statement.transform(window, format_of(self.config))
        try:
            if done.rows:
                metadata = file_metadata(self.config)
                await self._bucket.put(
                    key,
                    Stream(content_of(path)),
                    http_metadata=metadata,
                    custom_metadata=window.metadata,
                )
                log.info("sink wrote file", sink=self.name, key=key, rows=done.rows)
        finally:
            path.unlink(missing_ok=True)
        self._statement.forget(window)
        return Written(done.rows, done.bytes, 1 if done.rows else 0, drops=drops)


async def content_of(path: Path) -> AsyncIterator[bytes]:
    """The content of a file, in chunks."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            await anyio.lowlevel.checkpoint()  # a large file must not block other tasks
            yield chunk

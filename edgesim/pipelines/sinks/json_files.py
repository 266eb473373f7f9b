"""The R2 sink for JSON: each window becomes one file of newline-delimited rows.

Files are named as on the platform: ``<path>/year=2026/month=11/day=29/<UUID>.json``.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

import anyio.lowlevel
import structlog

from edgesim.config.sinks import SinkConfig
from edgesim.model import HttpMetadata, Stream
from edgesim.pipelines.pipeline import CHUNK_BYTES, GZIP_LEVEL, ObjectStore
from edgesim.pipelines.streams.window import StreamWindow, Written

log = structlog.get_logger()


class JsonFiles:
    """Writes windows into a bucket; a window that is written again is the same file."""

    def __init__(self, name: str, config: SinkConfig, bucket: ObjectStore) -> None:
        self.name = name
        self.config = config
        self._bucket = bucket

    async def write(self, window: StreamWindow) -> Written:
        """Store the window's file, unless an earlier run has."""
        key = file_key(self.config, window)
        if window.rows == 0:
            return Written()
        if (found := await self._bucket.head(key)) is not None:
            return Written(last=window.last_in(found))
        body = _gzip(window) if self.config.compression == "gzip" else _plain(window)
        metadata = file_metadata(self.config)
        await self._bucket.put(
            key, Stream(body), http_metadata=metadata, custom_metadata=window.metadata
        )
        log.info("sink wrote file", sink=self.name, key=key, rows=window.rows)
        return Written(window.rows, window.bytes, 1)


def file_key(config: SinkConfig, window: StreamWindow) -> str:
    """The key of a window's file."""
    ending = ".json.gz" if config.compression == "gzip" and config.format == "json" else ""
    name = window.id + (ending or f".{config.format}")
    parts = (config.path, window.opened_at.strftime(config.partitioning), name)
    return "/".join(part for each in parts if (part := each.strip("/")))


def file_metadata(config: SinkConfig) -> HttpMetadata:
    """The metadata of a sink's files."""
    if config.format == "parquet":
        return HttpMetadata(content_type="application/vnd.apache.parquet")
    packs = config.compression == "gzip"
    return HttpMetadata(content_type="application/gzip" if packs else "application/x-ndjson")


async def _plain(window: StreamWindow) -> AsyncIterator[bytes]:
    for lines in window.lines():
        for start in range(0, len(lines), CHUNK_BYTES):
            await anyio.lowlevel.checkpoint()  # a large window must not block other tasks
            yield lines[start : start + CHUNK_BYTES]


async def _gzip(window: StreamWindow) -> AsyncIterator[bytes]:
    """Compress without a time stamp, so a file that is written again has the same bytes."""
    compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)
    async for chunk in _plain(window):
        if data := compressor.compress(chunk):
            yield data
    yield compressor.flush()

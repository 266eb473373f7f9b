"""A Pipeline: ``send`` makes records durable, a window collects them and becomes one object.

The window opens with its first record and ends by age, bytes or rows, whichever is first; without
records there is no window and no object.  Objects are NDJSON, named as the platform names them:
``<prefix>/event_date=YYYY-MM-DD/hr=HH/<ULID>.json.gz``.

``send`` accepts records that violate the Pipeline's schema and drops them before the log, while
they are parsed: a later drop would look the same to a Worker, and need a second parse of every
record.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import msgspec
import structlog

from edgesim.backoff import Backoff
from edgesim.clock import Clock
from edgesim.config.pipelines import PipelineConfig
from edgesim.errors import EdgesimError, PlatformError
from edgesim.model import HttpMetadata, Stream
from edgesim.pipelines.buffer import Buffer
from edgesim.pipelines.log import Segment
from edgesim.pipelines.schema import fault, stripped
from edgesim.taps import Tap
from edgesim.tracing import Tracer

SEND_BYTES_MAX = 5_000_000
"""Maximum size of one send, as JSON (platform: 5 MB a request)."""
CHUNK_BYTES = 1 << 18
GZIP_LEVEL = 4
RETRY_SECONDS, RETRY_SECONDS_MAX = 0.5, 30.0

log = structlog.get_logger()


class ObjectStore(Protocol):
    """The bucket operations that a Pipeline uses."""

    async def head(self, key: str) -> Any:
        """The object's metadata, or None if there is no such object."""

    async def put(
        self,
        key: str,
        body: Stream,
        *,
        http_metadata: HttpMetadata,
        custom_metadata: Mapping[str, str] | None = None,
    ) -> Any:
        """Store an object."""


class Pipeline:
    """One Pipeline.  ``send`` needs no task; ``run`` ends windows and writes objects."""

    def __init__(
        self,
        name: str,
        config: PipelineConfig,
        bucket: ObjectStore,
        folder: Path,
        clock: Clock,
        tap: Tap | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.name = name
        self._tracer = tracer
        self._config = config
        self._bucket = bucket
        self._clock = clock
        self._buffer = Buffer("pipeline", name, folder, clock, self)
        self._tap = tap or Tap(f"pipelines.{name}", clock)
        self._flushed = anyio.Event()
        self.objects = 0
        self.dropped: Counter[str] = Counter()
        """Number of records refused by the schema, by reason."""

    @property
    def records(self) -> int:
        """Number of durable records since the start."""
        return self._buffer.records

    @property
    def bytes(self) -> int:
        """Bytes of the durable records since the start, as NDJSON."""
        return self._buffer.bytes

    @property
    def pending(self) -> int:
        """Number of durable records that are not yet in an object."""
        return self._buffer.pending

    @property
    def windows(self) -> list[Segment]:
        """The windows whose records are not yet in an object, oldest first."""
        return self._buffer.windows

    @property
    def window_ends_at(self) -> float | None:
        """Unix time at which the open window ends by age; None if no window is open."""
        window = self._buffer.open
        return None if window is None else window.opened_at + self._config.max_seconds

    async def send(self, records: Any) -> None:
        """Accept a list of JSON objects; returns once they are durable.

        Raises PlatformError: TypeError for any other value, Error for too many bytes or a failed
        write.
        """
        lines, kept = encode_records(records), records
        if self._config.schema:
            kept = self._kept(records)
            lines = encode_records(kept)
        if lines:
            await self._buffer.append(lines, len(kept))
        self._tap.offer(len(records), records)

    async def roll(self) -> None:
        """End the window now; returns once all records are in objects, or the window cannot end."""
        await self._buffer.recover()
        await self._buffer.seal()
        while self._buffer.sealed:
            await self._flushed.wait()

    async def run(self) -> None:
        """End windows by age and write objects, until cancelled."""
        await self._buffer.recover()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._buffer.recover_rest)
            tasks.start_soon(self._age)
            tasks.start_soon(self._flush)

    def close(self) -> None:
        """Close the log's files; their contents are recovered at the next start."""
        self._buffer.close()

    # --- the rules of its windows ---

    def is_full(self, window: Segment) -> bool:
        """True once the window has reached a limit of rows or bytes."""
        return window.rows >= self._config.max_rows or window.bytes >= self._config.max_bytes

    async def may_resume(self, window: Segment) -> bool:
        """True if a recovered window may take more records: not if its object may exist.

        A window whose seal was lost to damage appears open after its object was written.
        """
        try:
            return await self._bucket.head(window.key) is None
        except (EdgesimError, OSError) as error:
            log.warning("pipeline begins a new window", pipeline=self.name, error=str(error))
            return False

    def new_key(self) -> str:
        """The key of the object of a window that opens now."""
        now = self._clock.datetime()
        if self._config.layout == "legacy":
            name = now.strftime("event_date=%Y-%m-%d/hr=%H/") + self._clock.ulid()
        else:
            name = now.strftime("year=%Y/month=%m/day=%d/") + self._clock.uuid()
        suffix = ".json.gz" if self._config.compression == "gzip" else ".json"
        prefix = self._config.prefix.strip("/")
        return f"{prefix}/{name}{suffix}" if prefix else f"{name}{suffix}"

    def _kept(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The records that fit the schema, without other fields; refused records are counted."""
        schema = self._config.schema
        reasons = [fault(record, schema) for record in records]
        dropped = Counter(reason for reason in reasons if reason is not None)
        if dropped:
            self.dropped += dropped
            log.warning("pipeline dropped records", pipeline=self.name, **dropped)
        return [
            stripped(record, schema)
            for record, reason in zip(records, reasons, strict=True)
            if reason is None
        ]

    async def _age(self) -> None:
        while True:
            await self._buffer.until_opened()
            while (window := self._buffer.open) is not None:
                left = window.opened_at + self._config.max_seconds - self._clock.now()
                # Limit the wait to one window, in case the clock was set back.
                await anyio.sleep(min(max(left, 0), self._config.max_seconds))
                if self._buffer.open is window:
                    await self._buffer.seal()
                if self._buffer.open is window:
                    await anyio.sleep(RETRY_SECONDS_MAX)

    async def _flush(self) -> None:
        backoff = Backoff(RETRY_SECONDS, RETRY_SECONDS_MAX)
        while True:
            while self._buffer.sealed:
                segment = self._buffer.sealed[0]
                try:
                    with self._tracing(segment):
                        await self._write_object(segment)
                except (EdgesimError, OSError) as error:
                    delay = backoff.failed()
                    log.error(
                        "pipeline cannot write its object, will try again",
                        pipeline=self.name,
                        in_seconds=delay,
                        error=str(error),
                    )
                    await anyio.sleep(delay)
                    continue
                backoff.reset()
                await self._buffer.forget(segment)
                self._flushed.set()
                self._flushed = anyio.Event()
            await self._buffer.until_sealed()

    def _tracing(self, segment: Segment) -> AbstractContextManager[Any]:
        """The span of a window, from its first record to its object."""
        if self._tracer is None or segment.rows == 0:
            return nullcontext()
        attributes = {
            "edgesim.pipeline.name": self.name,
            "edgesim.pipeline.records": segment.rows,
            "edgesim.pipeline.bytes": segment.bytes,
            "cloudflare.r2.bucket": self._config.bucket,
            "cloudflare.r2.request.key": segment.key,
        }
        return self._tracer.span(
            "pipeline_window",
            "consumer",
            attributes,
            sources=segment.sources,
            started_at=segment.opened_at,
        )

    async def _write_object(self, segment: Segment) -> None:
        # After a crash the object may exist already, with its notification.
        if segment.rows == 0:
            return
        if await self._bucket.head(segment.key) is None:
            if self._config.compression == "gzip":
                body, kind = Stream(_gzip(segment)), "application/gzip"
            else:
                body, kind = Stream(_plain(segment)), "application/x-ndjson"
            metadata = HttpMetadata(content_type=kind)
            await self._bucket.put(segment.key, body, http_metadata=metadata)
            self.objects += 1
        log.info("pipeline wrote object", pipeline=self.name, key=segment.key, rows=segment.rows)


def encode_records(records: Any) -> bytes:
    """The records as NDJSON.  Raises PlatformError for values that a Pipeline refuses."""
    if not isinstance(records, list):
        raise PlatformError("Pipeline send() takes an array of records", "TypeError")
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise PlatformError(f"Pipeline record {index} is not a JSON object", "TypeError")
    try:
        lines: bytes = msgspec.json.Encoder().encode_lines(records)
    except (TypeError, RecursionError) as error:
        raise PlatformError(f"Pipeline records are not JSON: {error}", "TypeError") from error
    if len(lines) > SEND_BYTES_MAX:
        raise PlatformError(
            f"Pipeline send() of {len(lines)} bytes is over the limit of {SEND_BYTES_MAX} bytes"
        )
    return lines


async def _gzip(segment: Segment) -> AsyncIterator[bytes]:
    """Compress deterministically (no time stamp), so a retried write is the same object."""
    compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)
    async for chunk in _plain(segment):
        if data := compressor.compress(chunk):
            yield data
    yield compressor.flush()


async def _plain(segment: Segment) -> AsyncIterator[bytes]:
    for payload in segment.lines():
        for start in range(0, len(payload), CHUNK_BYTES):
            await anyio.lowlevel.checkpoint()  # a large window must not block other tasks
            yield payload[start : start + CHUNK_BYTES]

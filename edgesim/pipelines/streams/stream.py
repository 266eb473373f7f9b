"""A stream: ``send`` makes records durable, and each reader stores them window by window.

All readers share one log.  A segment of the log ends whenever a window of some reader ends, so each
window consists of whole segments; a segment is removed once every reader is past it.

Records that do not fit the schema are accepted and dropped before the log: a later drop would look
the same to a sender, and need a second parse of every record.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import anyio
import msgspec
import structlog

from edgesim.backoff import Backoff
from edgesim.clock import Clock
from edgesim.config.dataflow import HttpIngestConfig, StreamSpec
from edgesim.errors import EdgesimError, PlatformError
from edgesim.pipelines.buffer import Buffer
from edgesim.pipelines.pipeline import (
    RETRY_SECONDS,
    RETRY_SECONDS_MAX,
    SEND_BYTES_MAX,
    encode_records,
)
from edgesim.pipelines.segment import RowChunk, Segment
from edgesim.pipelines.streams.drops import Drops
from edgesim.pipelines.streams.growth import RowGrowth
from edgesim.pipelines.streams.kept_schema import keep_schema
from edgesim.pipelines.streams.positions import Position, Positions
from edgesim.pipelines.streams.reader import Sink, WindowReader
from edgesim.pipelines.streams.validation import SchemaValidator, objects_of
from edgesim.pipelines.streams.window import start_of
from edgesim.taps import Tap
from edgesim.tracing import Tracer, TraceSources

SEGMENT_BYTES_MAX = 64_000_000

Json = bytes
"""JSON texts; the class below has a property named bytes."""

log = structlog.get_logger()


class BufferFullError(PlatformError):
    """The records that wait for their sinks have reached the stream's limit."""


class SendWatcher(Protocol):
    """Observer of a stream's rows, for the checkers of a replay."""

    def sending(self, stream: str, rows: Any) -> None:
        """Note rows that are about to be made durable."""

    def accepted_by(self, stream: str, rows: list[Any]) -> None:
        """Note rows that are durable."""


class RecordStream:
    """One stream.  ``send`` needs no task; ``run`` ends windows and writes them into the sinks."""

    def __init__(
        self,
        spec: StreamSpec,
        folder: Path,
        clock: Clock,
        tap: Tap | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.name = spec.name
        self._tracer = tracer
        self._spec = spec
        self._clock = clock
        self._tap = tap or Tap(f"streams.{spec.name}", clock)
        keep_schema(folder, spec.fields)
        self._positions = Positions(folder)
        self._first = self._positions.first_free
        self._buffer = Buffer("stream", spec.name, folder, clock, self, self._first)
        self._validator = SchemaValidator(spec.fields, clock)
        self._growth = RowGrowth(spec.fields)
        self._encoder = msgspec.json.Encoder()
        self._closing = anyio.Lock()
        self._forgetting = anyio.Lock()
        self._changed = anyio.Event()
        self._delivered = anyio.Event()
        self._aging: Segment | None = None
        self.watcher: SendWatcher | None = None
        self.readers: list[WindowReader] = []
        self.records = 0
        """Number of accepted records since the start, dropped ones included."""
        self.drops = Drops()
        """Records that did not fit the schema, and rows on which a statement failed."""

    @property
    def http(self) -> HttpIngestConfig:
        """The settings of its HTTP endpoint."""
        return self._spec.config.http

    @property
    def bytes(self) -> int:
        """Bytes of the buffered rows since the start, as NDJSON."""
        return self._buffer.bytes

    @property
    def pending(self) -> int:
        """Number of rows that are not yet in every sink."""
        return self._buffer.pending

    @property
    def windows(self) -> list[Segment]:
        """The windows whose rows are not yet in every sink, oldest first."""
        return self._buffer.windows

    @property
    def objects(self) -> int:
        """Number of files that the sinks have written from this stream."""
        return sum(reader.written.files for reader in self.readers)

    def add_reader(self, name: str, sink: Sink) -> WindowReader:
        """Add a reader, before ``run``; a new one begins with the records sent from now on."""
        reader = WindowReader(name, sink, self._positions.of(name, self._first))
        self.readers.append(reader)
        return reader

    def pending_of(self, reader: WindowReader) -> int:
        """Number of rows that are not yet in the reader's sink."""
        return sum(each.rows for each in self._segments() if not reader.is_past(each))

    async def send(self, records: Any) -> int:
        """Accept a list of JSON objects; returns their number once they are durable.

        Raises PlatformError: TypeError for any other value, Error for too many bytes or a failed
        write, RowsTooLargeError for too large rows, BufferFullError if the sinks are too far
        behind.
        """
        self._growth.check(encode_records(records), lambda: records)
        return await self._accept(records)

    async def send_json(self, body: Json) -> int:
        """Like ``send``, for an array of objects in JSON; the limit counts its bytes.

        Raises BodyError or RecursionError if it is no such array.
        """
        if len(body) > SEND_BYTES_MAX:
            problem = f"{len(body)} bytes are over the limit of {SEND_BYTES_MAX} bytes"
            raise PlatformError(problem)
        self._growth.check(body, lambda: objects_of(body))
        rows = None if self._tap.readers else self._validator.decoded(body)
        if rows is None:
            return await self._accept(objects_of(body))
        count = len(rows)
        if self.readers and rows:
            encoded = self._encoded(rows)
            del rows  # so the next sender's rows have their memory, which the CPU has in its cache
            await self._append(encoded)
        self.records += count
        return count

    async def append(self, lines: Json, rows: int) -> None:
        """Make encoded rows durable, one a line, that need no check against a schema.

        Raises PlatformError for a failed write, BufferFullError if the sinks are too far behind.
        """
        self._check_room()
        await self._buffer.append(lines, rows)
        self._watch()

    async def roll(self) -> None:
        """End all windows now; returns once they are stored, or if a window cannot end.

        No window ends while a file of an earlier run is not recovered.
        """
        await self._buffer.recover()
        while self._buffer.is_recovered and any(self.pending_of(reader) for reader in self.readers):
            delivered = self._delivered
            if not await self._end_windows(all_of_them=True):
                return
            await delivered.wait()

    async def run(self) -> None:
        """End windows by age and size, and write them, until cancelled."""
        await self._buffer.recover()
        # A position tells that all segments before it are stored, so none may be missing.
        await self._buffer.recover_rest()
        self._positions.keep({reader.name for reader in self.readers})
        await self._forget()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._age)
            for reader in self.readers:
                tasks.start_soon(self._deliver, reader)

    def close(self) -> None:
        """Close the log's files; their contents are recovered at the next start."""
        self._buffer.close()

    # --- the rules of its segments ---

    def new_key(self) -> str:
        """The id of a segment that opens now."""
        return self._clock.uuid()

    def is_full(self, window: Segment) -> bool:
        """True if a window of some reader ends with this segment, because of its size."""
        return window.bytes >= SEGMENT_BYTES_MAX or any(
            sum(each.bytes for each in reader.ahead(self._segments())) >= limit
            for reader in self.readers
            if (limit := reader.sink.config.roll_bytes) < float("inf")
        )

    async def may_resume(self, window: Segment) -> bool:
        """False: a segment of an earlier run takes no more records.

        Its window may be stored already, if its seal or the positions were lost to damage.
        """
        return False

    def _segments(self) -> list[Segment]:
        opened = self._buffer.open
        return [*self._buffer.sealed, *([opened] if opened else [])]

    # --- records ---

    async def _accept(self, records: list[Any]) -> int:
        """Make the rows of JSON objects durable, and count and show the records."""
        if self.readers:
            rows, drops = self._validator.fitting(records)
            if rows:
                await self._append(self._encoded(rows))
            self._note(drops)
        self.records += len(records)
        self._tap.offer(len(records), records)
        return len(records)

    def _encoded(self, rows: list[Any]) -> tuple[RowChunk, list[Any] | None]:
        """The rows for the log, and for the watcher if there is one."""
        plain = None if self.watcher is None else msgspec.to_builtins(rows)
        return RowChunk(self._encoder.encode_lines(rows), len(rows)), plain

    async def _append(self, encoded: tuple[RowChunk, list[Any] | None]) -> None:
        chunk, plain = encoded
        if self.watcher is None or plain is None:
            await self.append(*chunk)
            return
        self._check_room()  # before the rows count as sent
        self.watcher.sending(self.name, plain)
        await self.append(*chunk)
        self.watcher.accepted_by(self.name, plain)

    def _note(self, drops: Drops) -> None:
        if drops.counts:
            self.drops.extend(drops)
            log.warning("stream dropped records", stream=self.name, **drops.counts)

    def _check_room(self) -> None:
        size = sum(segment.bytes for segment in self._segments())
        limit = self._spec.config.buffer_bytes_max
        if size >= limit:
            problem = f"Stream {self.name}: {size} bytes wait for the sinks; the limit is {limit}"
            raise BufferFullError(problem)

    def _watch(self) -> None:
        """Wake the task that ends windows, if a segment has begun, or has begun and ended."""
        segment = self._buffer.open
        if segment is None or segment is not self._aging:
            self._aging = segment
            self._changed.set()

    # --- windows ---

    async def _age(self) -> None:
        while True:
            now = self._clock.now()
            times = [reader.seconds_left(self._segments(), now) for reader in self.readers]
            left = [seconds for seconds in times if seconds is not None]
            with anyio.move_on_after(min(left) if left else None):
                await self._changed.wait()
                self._changed = anyio.Event()
            if not await self._end_windows():
                await anyio.sleep(RETRY_SECONDS_MAX)

    async def _end_windows(self, *, all_of_them: bool = False) -> bool:
        """End the windows that are due; False if one cannot end now."""
        async with self._closing:
            now, segments = self._clock.now(), self._segments()
            due = [
                reader
                for reader in self.readers
                if (left := reader.seconds_left(segments, now)) is not None
                and (left <= 0 or all_of_them)
            ]
            if not due:
                return True
            await self._buffer.seal()
            ending = {
                reader.name: Position(reader.position.first, ahead[-1].number, start_of(ahead[0]))
                for reader in due
                if (ahead := reader.ahead(self._buffer.sealed))
            }
            if not await self._save(ending):
                return False
            for reader in due:
                reader.due.set()
            return len(ending) == len(due)

    async def _save(self, changes: dict[str, Position]) -> bool:
        """Make changed positions durable, then use them; False if that fails."""
        try:
            await self._buffer.do(lambda: self._positions.save(changes))
        except EdgesimError as error:
            log.error("stream cannot save its positions", stream=self.name, error=str(error))
            return False
        for reader in self.readers:
            reader.position = self._positions.of(reader.name, self._first)
        return True

    async def _deliver(self, reader: WindowReader) -> None:
        backoff = Backoff(RETRY_SECONDS, RETRY_SECONDS_MAX)
        while True:
            while reader.is_writing:
                if await self._moved(reader):
                    backoff.reset()
                    continue
                await anyio.sleep(backoff.failed())
            await reader.due.wait()
            reader.due = anyio.Event()

    def _tracing(self, reader: WindowReader) -> AbstractContextManager[Any]:
        """The span of a reader's window, from its first record to its file."""
        inside = reader.inside(self._buffer.sealed)
        if self._tracer is None or not any(segment.rows for segment in inside):
            return nullcontext()
        sources = TraceSources(each for segment in inside for each in segment.sources.contexts)
        sources.left_out += sum(segment.sources.left_out for segment in inside)
        attributes = {
            "edgesim.stream.name": self.name,
            "edgesim.sink.name": reader.sink.name,
            "edgesim.pipeline.name": reader.name.partition("/")[0],
            "edgesim.pipeline.records": sum(segment.rows for segment in inside),
            "edgesim.pipeline.bytes": sum(segment.bytes for segment in inside),
        }
        return self._tracer.span(
            "pipeline_window",
            "consumer",
            attributes,
            sources=sources,
            started_at=inside[0].opened_at,
        )

    async def _moved(self, reader: WindowReader) -> bool:
        """Store the reader's window; False if that fails."""
        place = {"stream": self.name, "reader": reader.name, "sink": reader.sink.name}
        try:
            with self._tracing(reader):
                last, drops = await reader.move(self._buffer.sealed)
        except (EdgesimError, OSError) as error:
            reader.problem = str(error)
            log.error("sink cannot write, will try again", **place, error=reader.problem)
            return False
        reader.problem = ""
        if drops.counts:
            self.drops.extend(drops)
            problem = drops.samples[-1].problem
            log.error("statement dropped records", **place, **drops.counts, problem=problem)
        if not await self._save({reader.name: Position(last + 1)}):
            return False
        await self._forget()
        self._delivered.set()
        self._delivered = anyio.Event()
        self._changed.set()
        return True

    async def _forget(self) -> None:
        """Remove the segments that every reader is past."""
        async with self._forgetting:
            for segment in list(self._buffer.sealed):
                if all(reader.is_past(segment) for reader in self.readers):
                    await self._buffer.forget(segment)

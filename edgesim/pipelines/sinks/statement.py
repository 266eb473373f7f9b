"""A statement that fills a sink: its result over a window, and the rows that are not in it."""

from __future__ import annotations

from pathlib import Path

import structlog

from edgesim import durable
from edgesim.clock import Clock
from edgesim.pipelines.sql.cuts import Cuts
from edgesim.pipelines.sql.engine import SqlEngine
from edgesim.pipelines.sql.transformation import Transformation
from edgesim.pipelines.sql.wire import CRASH, FileFormat, Query, Transformed
from edgesim.pipelines.streams.drops import DroppedSample, Drops, shown
from edgesim.pipelines.streams.window import StreamWindow

log = structlog.get_logger()


class SinkStatement:
    """One statement; ``cuts`` is the folder for its cuts, and for rows that are set aside."""

    def __init__(
        self, sink: str, query: Query, engine: SqlEngine, cuts: Path, clock: Clock
    ) -> None:
        self._sink = sink
        self._query = query
        self._engine = engine
        self._cuts = cuts
        self._clock = clock
        self._current: tuple[str, FileFormat, Transformation] | None = None

    async def schema(self) -> bytes:
        """The serialised Arrow schema of the result.  SqlEngineError if the engine refuses it."""
        return (await self._engine.describe_columns(self._query)).schema

    async def transform(
        self, window: StreamWindow, form: FileFormat
    ) -> tuple[Path, Transformed, Drops]:
        """The file of the result, which the caller removes, and the rows that are dropped."""
        if self._current is None or self._current[:2] != (window.id, form):
            cuts = Cuts(self._query, self._file_of(window))
            running = Transformation(
                self._engine, self._query, form, window.id, window.chunks, cuts
            )
            self._current = (window.id, form, running)
        drops, aside = Drops(), bytearray()

        def drop(_: int, line: bytes, reason: str, problem: str) -> None:
            if reason == CRASH:  # perhaps no fault of the record
                aside.extend(line)
            now, sql = self._clock.now(), self._query.sql
            drops.add(DroppedSample(now, reason, "", shown(line), sql, problem))

        path, done = await self._current[2].run(drop)
        if aside:
            file = self._cuts / f"{window.id}.set-aside.json"
            durable.write_file(file, bytes(aside))
            log.error("records that end the SQL engine set aside", sink=self._sink, file=str(file))
        return path, done, drops

    def forget(self, window: StreamWindow) -> None:
        """Remove the cuts of a window that is stored."""
        self._current = None
        durable.remove(self._file_of(window))

    def _file_of(self, window: StreamWindow) -> Path:
        return self._cuts / f"{window.id}.json"

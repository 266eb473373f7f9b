"""A dataset: data points become durable in a stream's log, then rows of the dataset's table.

A handler never fails because of the store: points that the log cannot take are dropped and
counted.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

from edgesim.analytics.table import AnalyticsTable
from edgesim.clickhouse.gateway import Gateway
from edgesim.clock import Clock
from edgesim.config.dataflow import RecordStreamConfig, StreamSpec
from edgesim.errors import PlatformError
from edgesim.pipelines.streams.stream import RecordStream
from edgesim.tracing import Tracer

BUFFER_BYTES_MAX = 64_000_000
"""Bytes of a dataset's points that wait for ClickHouse; further ones are dropped."""

log = structlog.get_logger()


class DataPoint(msgspec.Struct, frozen=True):
    """A data point within the platform's limits; absent texts are empty."""

    index: str = ""
    blobs: list[str] = []
    doubles: list[float] = []


class DatasetCounts(msgspec.Struct):
    """Counts of a dataset since the start.

    ``points`` are durable; ``refused`` broke a limit of the platform; ``dropped`` found no room in
    the log.
    """

    points: int = 0
    refused: int = 0
    dropped: int = 0


class Dataset:
    """One dataset, shared by the Workers that bind it."""

    def __init__(
        self,
        name: str,
        folder: Path,
        gateway: Gateway,
        clock: Clock,
        tracer: Tracer | None = None,
    ) -> None:
        self.name = name
        self.counts = DatasetCounts()
        self._clock = clock
        self._encoder = msgspec.json.Encoder()
        spec = StreamSpec(name, RecordStreamConfig(buffer_bytes_max=BUFFER_BYTES_MAX), [])
        self.stream = RecordStream(spec, folder, clock, tracer=tracer)
        self._reader = self.stream.add_reader("table", AnalyticsTable(name, gateway))
        self._problem = ""

    @property
    def pending(self) -> int:
        """Number of points that are durable and not in the table yet."""
        return self.stream.pending

    @property
    def rows(self) -> int:
        """Number of rows inserted since the start."""
        return self._reader.written.rows

    @property
    def problem(self) -> str:
        """The error of the last insert; empty if it succeeded."""
        return self._reader.problem

    async def write(self, point: DataPoint) -> None:
        """Keep a point; returns once it is durable or dropped, and never fails."""
        row = _row(point, int(self._clock.now()))
        try:
            await self.stream.append(self._encoder.encode_lines([row]), 1)
        except PlatformError as error:
            self.counts.dropped += 1
            if not self._problem:  # until the next success once
                log.error("dataset drops data points", dataset=self.name, error=str(error))
            self._problem = str(error)
        else:
            self.counts.points += 1
            self._problem = ""


def _row(point: DataPoint, seconds: int) -> dict[str, object]:
    """The columns with a value; ClickHouse has defaults for the others."""
    row: dict[str, object] = {"timestamp": seconds}
    if point.index:
        row["index1"] = point.index
    for number, blob in enumerate(point.blobs, 1):
        if blob:
            row[f"blob{number}"] = blob
    for number, double in enumerate(point.doubles, 1):
        # JSON has no NaN and no infinity: as text they are read as numbers.
        finite = abs(double) < float("inf")
        row[f"double{number}"] = double if finite else str(double)
    return row

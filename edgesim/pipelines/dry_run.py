"""A pipeline over given records, without a server, a buffer or a bucket."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from edgesim.clock import Clock
from edgesim.config.dataflow import Dataflow, SqlPipelineSpec, StreamSpec, needs_engine
from edgesim.config.pipelines import Field
from edgesim.config.sql_statements import InsertInto
from edgesim.pipelines.segment import RowChunk
from edgesim.pipelines.sql.engine import SqlEngine, SqlEngineError
from edgesim.pipelines.sql.queries import query_of
from edgesim.pipelines.sql.transformation import Transformation
from edgesim.pipelines.sql.validation import located
from edgesim.pipelines.sql.wire import FileFormat, ResultColumn
from edgesim.pipelines.streams.rows import MisfitError, row_of

_JSON = FileFormat("json", "uncompressed", 1)


class DroppedRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record that is dropped; ``record`` is its number, from 1.

    ``column`` is the one that does not fit the schema; ``problem`` is the error of the statement
    that fills ``sink``.
    """

    record: int
    reason: str
    column: str = ""
    sink: str = ""
    problem: str = ""


class StatementResult(msgspec.Struct, frozen=True):
    """The rows that one statement writes into its sink, and their columns."""

    sink: str
    columns: list[ResultColumn]
    rows: list[dict[str, Any]]


class DryRun(msgspec.Struct, frozen=True):
    """The result of a pipeline over some records."""

    records: int
    dropped: list[DroppedRecord]
    statements: list[StatementResult]


async def dry_run(
    flow: Dataflow,
    spec: SqlPipelineSpec,
    stream: str,
    records: Iterable[dict[str, Any]],
    engine: SqlEngine,
    clock: Clock,
) -> DryRun:
    """Run the statements of a pipeline that read this stream."""
    source = flow.streams[stream]
    count, rows, dropped = 0, [], []
    numbers: list[int] = []
    for count, record in enumerate(records, 1):
        try:
            rows.append(row_of(record, source.fields))
            numbers.append(count)
        except MisfitError as fault:
            dropped.append(DroppedRecord(count, fault.reason, fault.column))
    statements = [
        await _result(flow, spec, statement, source, rows, numbers, dropped, engine, clock)
        for statement in spec.statements
        if statement.stream == stream
    ]
    dropped.sort(key=lambda each: each.record)
    return DryRun(count, dropped, statements)


async def _result(
    flow: Dataflow,
    spec: SqlPipelineSpec,
    statement: InsertInto,
    source: StreamSpec,
    rows: Sequence[dict[str, Any]],
    numbers: Sequence[int],
    dropped: list[DroppedRecord],
    engine: SqlEngine,
    clock: Clock,
) -> StatementResult:
    if not needs_engine(statement, flow.sinks[statement.sink]):
        fields = source.fields or [Field("json", "value")]
        columns = [ResultColumn(each.name, each.type, not each.required) for each in fields]
        return StatementResult(statement.sink, columns, list(rows))
    query = query_of(statement, source.fields, clock)
    try:
        columns = await engine.describe(query)
    except SqlEngineError as error:
        raise located(spec, statement, str(error)) from error
    chunk = RowChunk(msgspec.json.Encoder().encode_lines(rows), len(rows))

    def drop(row: int, _: bytes, reason: str, problem: str) -> None:
        dropped.append(DroppedRecord(numbers[row], reason, "", statement.sink, problem))

    transformation = Transformation(
        engine, query, _JSON, "rows", lambda: itertools.repeat(chunk, bool(rows))
    )
    path, _ = await transformation.run(drop)
    found = msgspec.json.Decoder(dict[str, Any]).decode_lines(path.read_bytes())
    path.unlink()
    return StatementResult(statement.sink, columns, found)

"""Validation of the columns of Iceberg tables, without a bucket.

Tables that exist already are not asked: Workers and clients can change them, so what they hold
says nothing about the project.
"""

from __future__ import annotations

from uuid import UUID

from edgesim.clock import Clock
from edgesim.config.dataflow import Dataflow
from edgesim.config.iceberg_limits import IcebergLimits
from edgesim.config.sql_limits import SqlLimits
from edgesim.pipelines.iceberg import wire
from edgesim.pipelines.iceberg.catalog import INGEST_COLUMN
from edgesim.pipelines.iceberg.engine import IcebergEngine, TableError
from edgesim.pipelines.sql.engine import SqlEngine
from edgesim.pipelines.sql.queries import query_of
from edgesim.scratch import scratch_folder

NIL = UUID(int=0)


async def check_columns(
    flow: Dataflow, engine: SqlEngine, iceberg: IcebergEngine, clock: Clock
) -> None:
    """Make the metadata of every table; ConfigError if Iceberg cannot have a statement's columns.

    The SQL must be valid.
    """
    for spec in flow.pipelines.values():
        for statement in spec.statements:
            if not flow.sinks[statement.sink].is_catalog:
                continue
            query = query_of(statement, flow.streams[statement.stream].fields, clock)
            columns = (await engine.describe_columns(query)).schema
            asked = wire.NewTable(columns, INGEST_COLUMN, {}, "s3://b/t", str(NIL), 0)
            try:
                await iceberg.ask(asked, wire.Metadata)
            except TableError as error:
                raise spec.error_at(statement.place, error.problem) from error


async def check_tables(flow: Dataflow, sql: SqlLimits, iceberg: IcebergLimits) -> None:
    """Like ``check_columns``, on engines of their own."""
    if not any(sink.is_catalog for sink in flow.sinks.values()):
        return
    tables = IcebergEngine(iceberg)
    with scratch_folder("sql") as folder:
        engine = SqlEngine(folder, sql)
        try:
            await check_columns(flow, engine, tables, Clock())
        finally:
            await engine.close()
            await tables.close()

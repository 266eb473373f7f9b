"""Validation of the columns of Iceberg tables, without a bucket."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from edgesim.clock import Clock
from edgesim.config.dataflow import Dataflow
from edgesim.pipelines.iceberg import wire
from edgesim.pipelines.iceberg.catalog import INGEST_COLUMN
from edgesim.pipelines.iceberg.engine import IcebergEngine, TableError
from edgesim.pipelines.sql.engine import SqlEngine
from edgesim.pipelines.sql.queries import query_of


async def check_tables(flow: Dataflow) -> None:
    """Make the metadata of every table; ConfigError if Iceberg cannot have a statement's columns.

    The SQL must be valid.
    """
    statements = [
        (spec, statement)
        for spec in flow.pipelines.values()
        for statement in spec.statements
        if flow.sinks[statement.sink].is_catalog
    ]
    if not statements:
        return
    clock, iceberg = Clock(), IcebergEngine()
    with TemporaryDirectory(prefix="edgesim-sql-") as folder:
        engine = SqlEngine(Path(folder))
        try:
            for spec, statement in statements:
                query = query_of(statement, flow.streams[statement.stream].fields, clock)
                columns = (await engine.describe_columns(query)).schema
                asked = wire.NewTable(columns, INGEST_COLUMN, {}, "s3://b/t", clock.uuid(), 0)
                try:
                    await iceberg.ask(asked, wire.Metadata)
                except TableError as error:
                    raise spec.error_at(statement.place, error.problem) from error
        finally:
            await engine.close()
            await iceberg.close()

"""Queries of statements, in the form that the engine takes."""

from __future__ import annotations

from edgesim.clock import Clock
from edgesim.config.pipelines import Field
from edgesim.config.sinks import MB, SinkConfig
from edgesim.config.sql_statements import InsertInto
from edgesim.pipelines.sql.wire import FileFormat, Query


def query_of(statement: InsertInto, fields: list[Field], clock: Clock) -> Query:
    """The statement's query; ``now()`` in it is the present time, whenever it is run.

    On the platform too ``now()`` is the time of the pipeline's start.
    """
    now = clock.datetime().strftime("%Y-%m-%dT%H:%M:%S.%f")
    return Query(statement.query, statement.stream, fields, now)


def format_of(sink: SinkConfig) -> FileFormat:
    """The form of a sink's files; that of an Iceberg table's is known with the table."""
    if sink.is_catalog:
        return FileFormat("json", "uncompressed", 1)
    return FileFormat(sink.format, sink.compression, sink.target_row_group_size * MB)

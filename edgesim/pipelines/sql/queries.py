"""Queries of statements, in the form that the engine takes."""

from __future__ import annotations

from edgesim.clock import Clock
from edgesim.config.pipelines import Field
from edgesim.config.sql_statements import InsertInto
from edgesim.pipelines.sql.wire import Query


def query_of(statement: InsertInto, fields: list[Field], clock: Clock) -> Query:
    """The statement's query; ``now()`` in it is the present time, whenever it is run.

    On the platform too ``now()`` is the time of the pipeline's start.
    """
    now = clock.datetime().strftime("%Y-%m-%dT%H:%M:%S.%f")
    return Query(statement.query, statement.stream, fields, now)

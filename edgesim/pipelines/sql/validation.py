"""Validation of a project's SQL by the engine: every statement is planned, none is run."""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgesim.clock import Clock
from edgesim.config.dataflow import Dataflow, SqlPipelineSpec, needs_engine
from edgesim.config.sql_limits import SqlLimits
from edgesim.config.sql_statements import InsertInto
from edgesim.config.sql_tokens import tokens_of
from edgesim.pipelines.sql.engine import SqlEngine, SqlEngineError
from edgesim.pipelines.sql.queries import format_of, query_of
from edgesim.pipelines.sql.wire import ResultColumn
from edgesim.scratch import scratch_folder

_NAMED = re.compile(r"(?:No field named|Invalid function)\s+['\"]?([\w.]+)")

ResultColumns = Mapping[tuple[str, int], list[ResultColumn]]
"""Columns of each statement, by pipeline and number of the statement."""


async def result_columns(flow: Dataflow, engine: SqlEngine, clock: Clock) -> ResultColumns:
    """The columns of every statement that the engine runs; ConfigError if it refuses one."""
    found = {}
    for spec in flow.pipelines.values():
        for number, statement in enumerate(spec.statements, 1):
            if not needs_engine(statement, flow.sinks[statement.sink]):
                continue
            query = query_of(statement, flow.streams[statement.stream].fields, clock)
            try:
                form = format_of(flow.sinks[statement.sink])
                found[spec.name, number] = await engine.describe(query, form)
            except SqlEngineError as error:
                raise located(spec, statement, str(error)) from error
    return found


async def check_sql(flow: Dataflow, limits: SqlLimits) -> None:
    """Plan every statement on an engine of its own; ConfigError if it refuses one."""
    with scratch_folder("sql") as folder:
        engine = SqlEngine(folder, limits)
        try:
            await result_columns(flow, engine, Clock())
        finally:
            await engine.close()


def located(spec: SqlPipelineSpec, statement: InsertInto, problem: str) -> Exception:
    """The engine's error, at the name that it is about or else at the statement."""
    named = _NAMED.search(problem)
    name = named[1].strip(".").rpartition(".")[2].lower() if named else ""
    place = statement.place
    inside = False
    for token in tokens_of(spec.sql):
        inside = inside or token.place == statement.place
        if inside and token.is_name and token.name.lower() == name:
            place = token.place
            break
    return spec.error_at(place, problem)

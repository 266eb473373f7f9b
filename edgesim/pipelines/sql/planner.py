"""One query over one stream, planned and run by DataFusion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from datafusion import (
    DataFrame,
    RuntimeEnvBuilder,
    SessionConfig,
    SessionContext,
    SQLOptions,
    udf,
)

from edgesim.pipelines.sql import wire
from edgesim.pipelines.sql.columns import schema_of
from edgesim.pipelines.sql.json_functions import BY_JSONPATH, BY_PATH, PATH_MAX, RowFunction
from edgesim.pipelines.sql.operators import rewritten

_REFUSED = {
    "Aggregate": "a pipeline does not aggregate; every record is transformed by itself",
    "Distinct": "every record is transformed by itself",
    "WindowAggr": "a pipeline has no window functions",
    "Join": "a pipeline does not join",
    "Sort": "a stream has no end, so nothing can be sorted",
    "Limit": "a stream has no end",
    "Union": "a statement is one SELECT",
    "Subquery": "a subquery may stand after FROM and in WITH only",
    "EmptyRelation": "the statement reads no stream",
}
"""Nodes of a plan that a pipeline cannot have, with the reason."""
_ALLOWED = {"Projection", "Filter", "TableScan", "SubqueryAlias", "Unnest"}
"""The nodes of every statement that a pipeline can run; an unknown one is refused."""
_ONLY_QUERIES = (
    SQLOptions().with_allow_ddl(False).with_allow_dml(False).with_allow_statements(False)
)
_NO_ROWS = "different number of rows than expected. Expected: 0"
"""DataFusion's own error for a function, such as array_positions, that is given no row."""
_RESULT_TYPES = {
    "bool": pa.bool_(),
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "list": pa.list_(pa.string()),
}


class PlanError(ValueError):
    """A query that a pipeline cannot run."""


class Planner:
    """A query with its own session; ``memory_bytes`` limits what DataFusion counts itself."""

    def __init__(self, query: wire.Query, memory_bytes: int) -> None:
        self._query = query
        self.fields = query.fields
        self._sql = rewritten(query.sql, query.now)
        memory = RuntimeEnvBuilder().with_greedy_memory_pool(memory_bytes)
        self._context = SessionContext(
            SessionConfig().with_target_partitions(1), memory.with_disk_manager_disabled()
        )
        for function in _functions():
            self._context.register_udf(function)
        self._empty = schema_of(query.fields).empty_table()
        self._register([[pa.RecordBatch.from_pylist([], self._empty.schema)]])
        frame = self._frame()
        _refuse(frame.logical_plan(), query.stream)
        self.schema = frame.schema()
        try:
            frame.to_arrow_table()  # an error without a row is the statement's
        except Exception as error:
            if _NO_ROWS not in str(error):
                raise

    def transformed(self, table: pa.Table) -> pa.Table:
        """The result of the query over these rows."""
        self._register([table.to_batches()])
        return self._frame().to_arrow_table()

    def transformed_file(self, rows: Path) -> pa.Table:
        """The result of the query over a file of newline-delimited JSON.

        This takes half the CPU time of a table that pyarrow has read.
        """
        self._context.deregister_table(self._query.stream)
        self._context.register_json(
            self._query.stream,
            rows.absolute().as_uri(),  # in a path, [ and ? are patterns
            schema=self._empty.schema,
            file_extension=rows.suffix,
        )
        return self._frame().to_arrow_table()

    def each(self, tables: Sequence[pa.Table]) -> Iterator[pa.Table | BaseException]:
        """The results over each of these tables, or its error; they share one plan."""
        self._register([table.to_batches() for table in tables])
        streams = self._frame().execute_stream_partitioned()
        if len(streams) != len(tables):
            raise PlanError(f"{len(streams)} results of {len(tables)} tables")
        for stream in streams:
            try:
                yield _table([each.to_pyarrow() for each in stream], self.schema)
            except BaseException as error:  # noqa: BLE001 (a panic of the engine is none of Exception)
                yield error

    def _frame(self) -> DataFrame:
        return self._context.sql_with_options(self._sql, _ONLY_QUERIES)

    def _register(self, partitions: list[list[pa.RecordBatch]]) -> None:
        self._context.deregister_table(self._query.stream)
        self._context.register_record_batches(self._query.stream, partitions)


def _table(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """The batches of a stream as a table of the plan's schema.

    DataFusion's batches may be stricter than its plan: a column without null says so.
    """
    return pa.Table.from_batches(batches).cast(schema) if batches else schema.empty_table()


def _refuse(plan: Any, stream: str) -> None:
    node = plan.display().partition(":")[0].strip()
    name = node.rpartition(" ")[2] if node.endswith("Join") else node
    if name in _REFUSED:
        raise PlanError(f"{node} is not for pipelines: {_REFUSED[name]}")
    if name not in _ALLOWED:
        raise PlanError(f"{node} is not for pipelines: a statement is one SELECT from a stream")
    if name == "TableScan" and plan.display().split()[1] != stream:
        raise PlanError(f"{plan.display()}: a statement reads its stream only")
    for each in plan.inputs():
        _refuse(each, stream)


def _functions() -> Iterator[Any]:
    text = pa.string()
    for name, (function, result) in BY_PATH.items():
        for keys in range(PATH_MAX + 1):
            yield _udf(f"{name}_{keys}", function, [text] * (keys + 1), _RESULT_TYPES[result])
    for name, (function, result) in BY_JSONPATH.items():
        yield _udf(name, function, [text, text], _RESULT_TYPES[result])


def _udf(name: str, function: RowFunction, inputs: list[pa.DataType], result: pa.DataType) -> Any:
    return udf(partial(_by_rows, function, result), inputs, result, "immutable", name)


def _by_rows(function: RowFunction, result: pa.DataType, *columns: pa.Array) -> pa.Array:
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    return pa.array([function(*row) for row in rows], result)

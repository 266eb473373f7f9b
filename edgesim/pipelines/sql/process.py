"""The SQL process: ``python -m edgesim.pipelines.sql.process FD`` serves a socket until it closes.

One request is served at a time.  Rows are transformed frame by frame, since every record is
transformed by itself; one partition keeps their order.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
from datafusion import DataFrame, SessionConfig, SessionContext, udf

from edgesim.jail.lifeline import end_with_edgesim
from edgesim.pipelines.sql import wire
from edgesim.pipelines.sql.columns import schema_of, table_of
from edgesim.pipelines.sql.files import RESULTS, plain_schema
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
    """One query over one stream."""

    def __init__(self, query: wire.Query) -> None:
        self._query = query
        self._sql = rewritten(query.sql, query.now)
        self._context = SessionContext(SessionConfig().with_target_partitions(1))
        for function in _functions():
            self._context.register_udf(function)
        self._register(schema_of(query.fields).empty_table())
        self._plan()

    def _plan(self) -> None:
        frame = self._context.sql(self._sql)
        _refuse(frame.logical_plan())
        self.schema = frame.schema()

    def _register(self, table: pa.Table) -> None:
        self._context.deregister_table(self._query.stream)
        batches = table.to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]
        self._context.register_record_batches(self._query.stream, [batches])

    def transformed(self, lines: bytes) -> pa.Table:
        """The result of the query over these rows."""
        self._register(table_of(lines, self._query.fields))
        frame: DataFrame = self._context.sql(self._sql)
        return frame.to_arrow_table()


def _refuse(plan: Any) -> None:
    node = plan.display().partition(":")[0].strip()
    name = node.rpartition(" ")[2] if node.endswith("Join") else node
    if name in _REFUSED:
        raise PlanError(f"{node} is not for pipelines: {_REFUSED[name]}")
    for each in plan.inputs():
        _refuse(each)


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


def _answer(request: wire.SqlFrame, pipe: BinaryIO) -> wire.SqlFrame:
    match request:
        case wire.Describe(query):
            schema = plain_schema(Planner(query).schema)
            return wire.Columns(
                [wire.ResultColumn(each.name, str(each.type), each.nullable) for each in schema],
                schema.serialize().to_pybytes(),
            )
        case wire.Transform():
            rows = _received(pipe)
            try:
                return _transform(request, rows)
            finally:
                for _ in rows:  # after an error: the platform sends them all
                    pass
    raise PlanError(f"not a request: {type(request).__name__}")


def _transform(request: wire.Transform, rows: Iterator[bytes]) -> wire.Transformed:
    planner, form = Planner(request.query), request.format
    with RESULTS[form.format](Path(request.path), form, planner.schema) as file:
        for lines in rows:
            file.write(planner.transformed(lines))
    return wire.Transformed(file.rows, file.bytes)


def _received(pipe: BinaryIO) -> Iterator[bytes]:
    while isinstance(frame := wire.read(pipe), wire.Rows):
        yield frame.lines


def serve(pipe: BinaryIO, send: Callable[[bytes], None]) -> None:
    """Serve requests until the socket closes."""
    send(wire.encode(wire.EndOfRows()))
    while True:
        try:
            request = wire.read(pipe)
        except EOFError:
            return
        send(wire.encode(_answer_or_error(request, pipe)))


def _answer_or_error(request: wire.SqlFrame, pipe: BinaryIO) -> wire.SqlFrame:
    try:
        return _answer(request, pipe)
    except EOFError:
        raise
    except BaseException as error:  # noqa: BLE001 (a panic of the engine is none of Exception)
        return wire.SqlFailed(" ".join(str(error).split()) or type(error).__name__)


if __name__ == "__main__":
    end_with_edgesim()
    with socket.socket(fileno=int(sys.argv[1])) as channel, channel.makefile("rb") as stream:
        serve(stream, channel.sendall)

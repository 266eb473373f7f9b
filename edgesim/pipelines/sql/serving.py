"""Requests to the SQL process.

Rows come in batches.  A batch that fails is run again in parts, and the rows that fail by
themselves are left out: every record is transformed by itself, so the others' results are the same.
One partition keeps the rows' order.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from edgesim.pipelines.process_limits import ProcessLimits, end_for_memory
from edgesim.pipelines.sql import wire
from edgesim.pipelines.sql.columns import can_read_rows, rows_with_json_as_text, table_of
from edgesim.pipelines.sql.files import (
    RESULTS,
    JsonResult,
    ParquetResult,
    first_lines,
    plain_schema,
)
from edgesim.pipelines.sql.planner import PlanError, Planner

PART_ROWS = 256
"""Rows of a part of a batch that has failed."""
MESSAGE_CHARS_MAX = 300
STATEMENTS_MAX = 32
"""Statements that are kept planned, for their next window."""
_NO_MEMORY = (
    "DataFusion error: Resources exhausted",
    "DataFusion error: Execution error: PyErr { type: <class 'MemoryError'>",
)


def serve(pipe: BinaryIO, send: Callable[[bytes], None], limits: ProcessLimits) -> None:
    """Serve requests, one at a time, until the socket closes."""
    send(wire.FRAMES.encode(wire.SqlReady()))
    while True:
        try:
            request = wire.FRAMES.read(pipe)
        except EOFError:
            return
        try:
            answer = _answer(request, pipe, send, limits)
        except EOFError:
            return
        except BaseException as error:  # noqa: BLE001 (a panic of the engine is none of Exception)
            _planner.cache_clear()
            answer = wire.SqlFailed(_message(error))
        send(wire.FRAMES.encode(answer))


def _answer(
    request: wire.SqlFrame, pipe: BinaryIO, send: Callable[[bytes], None], limits: ProcessLimits
) -> wire.SqlFrame:
    match request:
        case wire.Describe(query, form, seconds):
            with limits.of_a_request(seconds):
                schema = plain_schema(_planned(query, limits).schema)
                with RESULTS[form.format](io.BytesIO(), form, schema):
                    pass  # an error for types that its files cannot have
            return wire.Columns(_columns(schema), schema.serialize().to_pybytes())
        case wire.Preview(path, rows, size, seconds):
            with limits.of_a_request(seconds), pq.ParquetFile(path) as file:
                lines = first_lines(file, rows, size)
                return wire.Previewed(_columns(file.schema_arrow), lines, file.metadata.num_rows)
        case wire.Transform(query, form, path, seconds):
            with limits.of_a_request(seconds):
                planner = _planned(query, limits)
            with (
                Path(path).open("wb") as raw,
                RESULTS[form.format](raw, form, planner.schema) as file,
            ):
                send(wire.FRAMES.encode(wire.SqlReady()))
                while isinstance(frame := wire.FRAMES.read(pipe), wire.Rows):
                    batch = Batch(planner, file, Path(f"{path}.rows"))
                    with limits.of_a_request(frame.seconds):
                        batch.run(Path(frame.path))
                    batch.write()
                    if batch.drops:  # after a panic, the session may be of no use
                        _planner.cache_clear()
                    send(wire.FRAMES.encode(wire.RowsDone(batch.drops)))
            return wire.Transformed(file.rows, file.bytes)
    raise PlanError(f"not a request: {type(request).__name__}")


def _columns(schema: pa.Schema) -> list[wire.ResultColumn]:
    return [wire.ResultColumn(each.name, str(each.type), each.nullable) for each in schema]


def _planned(query: wire.Query, limits: ProcessLimits) -> Planner:
    return _planner(msgspec.msgpack.encode(query), limits.memory_bytes)


@lru_cache(STATEMENTS_MAX)
def _planner(query: bytes, memory_bytes: int) -> Planner:
    return Planner(msgspec.msgpack.decode(query, type=wire.Query), memory_bytes)


class Batch:
    """Rows of one frame on their way to the file; ``drops`` are the rows that fail.

    ``scratch`` is a file for rows in another form.
    """

    def __init__(self, planner: Planner, file: JsonResult | ParquetResult, scratch: Path) -> None:
        self._planner = planner
        self._file = file
        self._scratch = scratch
        self._fields = planner.fields
        self._encoded: list[pa.Table | tuple[bytes, int]] = []
        self.drops: list[wire.RowDrop] = []

    def run(self, rows: Path) -> None:
        """Transform and encode the rows of a file, together if that works, else one by one."""
        if self._run_file(rows):
            return
        table, numbers = self._read(rows.read_bytes())
        if not numbers or self._fault(self._transformed(table)) is None:
            return
        parts = [table.slice(at, PART_ROWS) for at in range(0, len(numbers), PART_ROWS)]
        for index, result in enumerate(list(self._planner.each(parts))):
            if self._fault(result) is not None:
                some = numbers[index * PART_ROWS : (index + 1) * PART_ROWS]
                self._run_rows(parts[index], some)

    def write(self) -> None:
        """Write the results; OSError if the disk refuses them, which is no row's fault."""
        for each in self._encoded:
            self._file.write(each)

    def _run_file(self, rows: Path) -> bool:
        """Run all rows by DataFusion's own reader; False if it has no such type, or if a row fails.

        OSError if the disk does not take rows in another form.
        """
        if not can_read_rows(self._fields):
            return False
        try:
            text = rows_with_json_as_text(rows, self._fields)
        except BaseException as error:  # noqa: BLE001 (as below)
            _end_if_memory(error)
            return False
        if text is not None:
            self._scratch.write_bytes(text)
        try:
            file = rows if text is None else self._scratch
            result: pa.Table | BaseException = self._planner.transformed_file(file)
        except BaseException as error:  # noqa: BLE001 (as below)
            result = error
        finally:
            self._scratch.unlink(missing_ok=True)
        return self._fault(result) is None

    def _read(self, lines: bytes) -> tuple[pa.Table, Sequence[int]]:
        """The rows as a table, with their numbers; those that cannot be in one are dropped."""
        try:
            table = table_of(lines, self._fields)
        except BaseException as error:  # noqa: BLE001 (a panic of the engine is none of Exception)
            _end_if_memory(error)
        else:
            return table, range(table.num_rows)
        tables, numbers = [], []
        for number, line in enumerate(lines.splitlines(keepends=True)):
            try:
                tables.append(table_of(line, self._fields))
                numbers.append(number)
            except BaseException as error:  # noqa: BLE001 (as above)
                self._drop(number, error)
        return pa.concat_tables(tables).combine_chunks() if tables else None, numbers

    def _transformed(self, table: pa.Table) -> pa.Table | BaseException:
        try:
            return self._planner.transformed(table)
        except BaseException as error:  # noqa: BLE001 (as above)
            return error

    def _run_rows(self, table: pa.Table, numbers: Sequence[int]) -> None:
        """Run each row by itself, and drop those that fail."""
        rows = [table.slice(at, 1) for at in range(len(numbers))]
        good: list[tuple[int, pa.Table]] = []
        for number, result in zip(numbers, list(self._planner.each(rows)), strict=True):
            if isinstance(result, BaseException):
                _end_if_memory(result)
                self._drop(number, result)
            else:
                good.append((number, result))
        if not good or self._fault(pa.concat_tables([each for _, each in good])) is None:
            return
        for number, result in good:
            if (error := self._fault(result)) is not None:
                self._drop(number, error)

    def _fault(self, result: pa.Table | BaseException) -> BaseException | None:
        """Take a result for the file; returns the error if there is none, or the file's."""
        try:
            if isinstance(result, BaseException):
                raise result
            self._encoded.append(self._file.encoded(result))
        except BaseException as error:  # noqa: BLE001 (as above)
            _end_if_memory(error)
            return error
        return None

    def _drop(self, number: int, error: BaseException) -> None:
        self.drops.append(wire.RowDrop(number, wire.SQL_ERROR, _message(error)))


def _end_if_memory(error: BaseException) -> None:
    """End the process: what it has left cannot be relied on, and the platform makes less of it."""
    if isinstance(error, MemoryError) or str(error).startswith(_NO_MEMORY):
        end_for_memory()


def _message(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:MESSAGE_CHARS_MAX]

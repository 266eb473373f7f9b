"""Results of SQL as files: newline-delimited JSON or Parquet."""

from __future__ import annotations

import gzip
from typing import Any, BinaryIO, Self

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from edgesim.pipelines.sql.columns import JSON_MARK
from edgesim.pipelines.sql.wire import FileFormat
from edgesim.pipelines.streams.timestamps import timestamp_text

_VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
_UNITS = {"s": "second", "ms": "millisecond", "us": "microsecond", "ns": "nanosecond"}
GZIP_LEVEL = 4


class JsonResult:
    """Newline-delimited JSON, with every column in every row."""

    def __init__(self, raw: BinaryIO, format_: FileFormat, schema: pa.Schema) -> None:
        self._raw = raw
        self._packs = format_.compression == "gzip"
        self.rows = 0
        self.bytes = 0

    def __enter__(self) -> Self:
        self._file: Any = self._raw
        if self._packs:  # without a name and a time, so equal rows are equal bytes
            self._file = gzip.GzipFile("", "wb", GZIP_LEVEL, self._raw, mtime=0)
        return self

    def __exit__(self, *error: object) -> None:
        if self._packs:
            self._file.close()

    def encoded(self, table: pa.Table) -> tuple[bytes, int]:
        """The lines of a table's rows, and their number."""
        return _lines(table), table.num_rows

    def write(self, encoded: tuple[bytes, int]) -> None:
        """Add encoded rows."""
        lines, rows = encoded
        self._file.write(lines)
        self.rows += rows
        self.bytes += len(lines)


class ParquetResult:
    """Parquet; a row group is written when its rows have reached the target size in memory."""

    def __init__(self, raw: BinaryIO, format_: FileFormat, schema: pa.Schema) -> None:
        self._raw = raw
        self._format = format_
        self._schema = plain_schema(schema)
        self._group: list[pa.Table] = []
        self._group_bytes = 0
        self.rows = 0
        self.bytes = 0

    def __enter__(self) -> Self:
        compression = self._format.compression
        self._writer = pyarrow.parquet.ParquetWriter(
            self._raw,
            self._schema,
            compression="none" if compression == "uncompressed" else compression,
        )
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self._end_group()
        self._writer.close()

    def encoded(self, table: pa.Table) -> pa.Table:
        """The table in the file's types."""
        return table.cast(self._schema)

    def write(self, table: pa.Table) -> None:
        """Add the rows of an encoded table."""
        self._group.append(table)
        self._group_bytes += table.nbytes
        self.rows += table.num_rows
        self.bytes += table.nbytes
        if self._group_bytes >= self._format.row_group_bytes:
            self._end_group()

    def _end_group(self) -> None:
        if self._group:
            group = pa.concat_tables(self._group)
            self._writer.write_table(group, row_group_size=max(group.num_rows, 1))
        self._group, self._group_bytes = [], 0


class TableResult(ParquetResult):
    """Parquet for an Iceberg table: with its columns, their ids, and the ingest column."""

    def __init__(self, raw: BinaryIO, format_: FileFormat, schema: pa.Schema) -> None:
        super().__init__(raw, format_, pa.ipc.read_schema(pa.py_buffer(format_.schema)))

    def encoded(self, table: pa.Table) -> pa.Table:
        """The table in the file's columns; times are cut to the microseconds that Iceberg has."""
        columns = [self._column(field, table) for field in self._schema]
        return pa.table(columns, schema=self._schema)

    def _column(self, field: pa.Field, table: pa.Table) -> pa.Array | pa.ChunkedArray:
        if field.name == self._format.ingest_column:
            return pa.repeat(pa.scalar(self._format.ingest_us, field.type), table.num_rows)
        if field.name not in table.schema.names:  # a client has added it to the table
            return pa.nulls(table.num_rows, field.type)
        options = pc.CastOptions(field.type, allow_time_truncate=True)
        return pc.cast(table[field.name], options=options)


RESULTS: dict[str, type[JsonResult | ParquetResult]] = {
    "json": JsonResult,
    "parquet": ParquetResult,
    "table": TableResult,
}


def first_lines(file: pyarrow.parquet.ParquetFile, rows: int, size: int) -> bytes:
    """The first rows as newline-delimited JSON; fewer if ``size`` bytes do not hold them."""
    for batch in file.iter_batches(batch_size=rows):
        lines = _lines(pa.Table.from_batches([batch]))
        return lines if len(lines) <= size else lines[: lines.rfind(b"\n", 0, size) + 1]
    return b""


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema without the view types that only engines use in memory."""
    return pa.schema([field.with_type(_VIEWS.get(field.type, field.type)) for field in schema])


def _lines(table: pa.Table) -> bytes:
    """The rows of a table as newline-delimited JSON."""
    columns = [
        _json_values(column, field)
        for column, field in zip(table.columns, table.schema, strict=True)
    ]
    names = table.column_names
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return msgspec.json.Encoder(decimal_format="number").encode_lines(rows)


def _json_values(column: pa.ChunkedArray, field: pa.Field) -> list[Any]:
    values: list[Any] = []
    for chunk in column.chunks:
        values += _shown(chunk).to_pylist()
    if field.metadata and JSON_MARK.items() <= field.metadata.items():
        return [None if each is None else msgspec.Raw(each.encode()) for each in values]
    return values


def _shown(array: pa.Array) -> pa.Array:
    """The array with times as RFC 3339 text, at every depth."""
    kind = array.type
    if pa.types.is_timestamp(kind):
        unit = _UNITS[kind.unit]
        texts = [
            None if each is None else timestamp_text(each, unit)
            for each in array.cast(pa.int64()).to_pylist()
        ]
        return pa.array(texts, pa.string())
    if pa.types.is_time(kind):
        return array.cast(pa.string())  # Python's time has no nanoseconds
    if pa.types.is_duration(kind):
        return array.cast(pa.duration("us"), safe=False)  # nor has its timedelta
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(array.offsets, _shown(array.values), mask=array.is_null())
    if pa.types.is_struct(kind):
        members = [_shown(array.field(index)) for index in range(kind.num_fields)]
        names = [kind.field(index).name for index in range(kind.num_fields)]
        return pa.StructArray.from_arrays(members, names, mask=array.is_null())
    return array

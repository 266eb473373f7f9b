"""Rows of a stream as Arrow tables.

A ``json`` column is text in SQL, marked in its field's metadata; a column that SQL passes on
unchanged keeps the mark, and is JSON again in a JSON file.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.json as arrow_json

from edgesim.config.pipelines import Field

JSON_MARK = {b"edgesim.type": b"json"}
_UNITS = {"second": "s", "millisecond": "ms", "microsecond": "us", "nanosecond": "ns"}
_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "json": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "binary": pa.binary(),
    "bytes": pa.binary(),
}
_BYTES = ("binary", "bytes")
_PREFIX, _SUFFIX = len(b'{"value":'), len(b"}")


def schema_of(fields: Sequence[Field]) -> pa.Schema:
    """The columns of a stream; an unstructured one has ``value``."""
    fields = fields or [Field("json", "value")]
    return pa.schema([_arrow_field(field, is_read=False) for field in fields])


def table_of(lines: bytes, fields: Sequence[Field]) -> pa.Table:
    """The rows, newline-delimited JSON, as one table."""
    schema = schema_of(fields)
    if not lines:
        return schema.empty_table()
    if not fields:
        texts = [line[_PREFIX:-_SUFFIX].decode() for line in lines.splitlines()]
        return pa.table([pa.array(texts, pa.string())], schema=schema)
    if any(_has(field, "json") for field in fields):
        lines = _json_as_text(lines, fields)
    read = pa.schema([_arrow_field(field, is_read=True) for field in fields])
    table = arrow_json.read_json(
        io.BytesIO(lines),
        arrow_json.ReadOptions(block_size=max(len(lines), 1)),
        arrow_json.ParseOptions(explicit_schema=read, unexpected_field_behavior="ignore"),
    ).combine_chunks()
    columns = [
        _finished(column.chunk(0), field)
        for column, field in zip(table.select(read.names).columns, fields, strict=True)
    ]
    return pa.table(columns, schema=schema)


def can_read_rows(fields: Sequence[Field]) -> bool:
    """True if DataFusion's JSON reader makes the same columns of the rows as ``table_of``.

    It has no whole record for an unstructured stream, and reads bytes in another form.
    """
    return bool(fields) and not any(_has(field, each) for field in fields for each in _BYTES)


def rows_with_json_as_text(rows: Path, fields: Sequence[Field]) -> bytes | None:
    """The rows of a file with ``json`` values as strings; None if there is no ``json`` field."""
    if any(_has(field, "json") for field in fields):
        return _json_as_text(rows.read_bytes(), fields)
    return None


def _arrow_field(field: Field, *, is_read: bool) -> pa.Field:
    metadata = JSON_MARK if field.type == "json" else None
    nullable = is_read or not field.required
    return pa.field(field.name or "item", _arrow_type(field, is_read=is_read), nullable, metadata)


def _arrow_type(field: Field, *, is_read: bool) -> pa.DataType:
    """The column's type in SQL, or (``is_read``) the one that the JSON reader parses."""
    match field.type:
        case "timestamp":
            unit = _UNITS[field.unit or "millisecond"]
            return pa.timestamp(unit, "UTC") if is_read else pa.timestamp(unit)
        case "list":
            assert field.items is not None
            return pa.list_(_arrow_field(field.items, is_read=is_read))
        case "struct":
            return pa.struct([_arrow_field(each, is_read=is_read) for each in field.fields])
        case "binary" | "bytes" if is_read:
            return pa.string()
    return _TYPES[field.type]


def _finished(array: pa.Array, field: Field) -> pa.Array:
    """An array as the JSON reader gives it, in the column's type."""
    wanted = _arrow_type(field, is_read=False)
    match field.type:
        case "timestamp":
            return array.cast(wanted)
        case "binary" | "bytes":
            values = [
                None if each is None else base64.b64decode(each) for each in array.to_pylist()
            ]
            return pa.array(values, wanted)
        case "list":
            assert field.items is not None
            values = _finished(array.values, field.items)
            return pa.ListArray.from_arrays(array.offsets, values, wanted, mask=array.is_null())
        case "struct":
            members = [
                _finished(array.field(index), each) for index, each in enumerate(field.fields)
            ]
            return pa.StructArray.from_arrays(members, fields=list(wanted), mask=array.is_null())
    return array


def _has(field: Field, kind: str) -> bool:
    inside = [*field.fields, *([field.items] if field.items else [])]
    return field.type == kind or any(_has(each, kind) for each in inside)


def _json_as_text(lines: bytes, fields: Sequence[Field]) -> bytes:
    """The rows with the values of ``json`` fields as strings."""
    rows: list[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode_lines(lines)
    for row in rows:
        _replace(row, fields)
    return msgspec.json.Encoder().encode_lines(rows)


def _replace(row: dict[str, Any], fields: Sequence[Field]) -> None:
    for field in fields:
        if row.get(field.name) is not None and _has(field, "json"):
            row[field.name] = _as_text(row[field.name], field)


def _as_text(value: Any, field: Field) -> Any:
    if value is None:
        return None
    if field.type == "json":
        return msgspec.json.encode(value).decode()
    if field.type == "list":
        assert field.items is not None
        return [_as_text(each, field.items) for each in value]
    _replace(value, field.fields)
    return value

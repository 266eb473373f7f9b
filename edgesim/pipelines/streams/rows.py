"""Records of a stream as rows with the columns of its schema.

A row has every column of the schema, in the schema's order, null where the record has no value, and
no other field: unknown fields are removed without a warning.  Timestamps become RFC 3339 text in
UTC.  An unstructured stream has one column, ``value``, with the whole record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgesim.config.pipelines import Field
from edgesim.pipelines.schema import value_fault
from edgesim.pipelines.streams.timestamps import DEFAULT_UNIT, timestamp_text


class MisfitError(ValueError):
    """A record that does not fit the schema: a reason of ``schema.REASONS``, and the column."""

    def __init__(self, reason: str, column: str) -> None:
        super().__init__(f"{column}: {reason}")
        self.reason = reason
        self.column = column


def row_of(record: dict[str, Any], fields: Sequence[Field]) -> dict[str, Any]:
    """The record's row; MisfitError if it does not fit the schema."""
    return _struct(record, fields, "") if fields else {"value": record}


def _struct(record: dict[str, Any], fields: Sequence[Field], place: str) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for field in fields:
        value = record.get(field.name)
        if _is_null(value):
            if field.required:
                reason = "null_value" if field.name in record else "missing_field"
                raise MisfitError(reason, f"{place}{field.name}")
            row[field.name] = None
        else:
            row[field.name] = _value(value, field, f"{place}{field.name}")
    return row


def _value(value: Any, field: Field, place: str) -> Any:
    match field.type:
        case "json":
            return value
        case "struct":
            if not isinstance(value, dict):
                raise MisfitError("type_mismatch", place)
            return _struct(value, field.fields, f"{place}.")
        case "list":
            if not isinstance(value, list):
                raise MisfitError("type_mismatch", place)
            assert field.items is not None
            return [_item(item, field.items, place) for item in value]
    if reason := value_fault(value, field):
        raise MisfitError(reason, place)
    if field.type == "timestamp":
        text = timestamp_text(value, field.unit or DEFAULT_UNIT)
        if text is None:
            raise MisfitError("parse_failure", place)
        return text
    if field.type.startswith("int"):
        return int(value)
    return float(value) if field.type.startswith("float") else value


def _item(value: Any, items: Field, place: str) -> Any:
    if not _is_null(value):
        return _value(value, items, f"{place}[]")
    if items.required:
        raise MisfitError("null_value", f"{place}[]")
    return None


def _is_null(value: Any) -> bool:
    """True for null, and for numbers that JSON writes as null: NaN and the infinities."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))

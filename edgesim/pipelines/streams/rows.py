"""Records of a stream as rows with the columns of its schema.

A row has every column of the schema, in the schema's order, null where the record has no value, and
no other field: unknown fields are removed without a warning.  Timestamps become RFC 3339 text in
UTC.  An unstructured stream has one column, ``value``, with the whole record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from edgesim.config.pipelines import Field
from edgesim.pipelines.schema import value_fault

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")
_DIGITS = {"second": 0, "millisecond": 3, "microsecond": 6, "nanosecond": 9}
"""Digits after the second, by unit."""
DEFAULT_UNIT = "millisecond"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECOND_YEARS = range(1678, 2262)
"""Years of which every instant is a 64-bit number of nanoseconds since 1970."""


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
        if value is None:
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
    return int(value) if field.type.startswith("int") else value


def _item(value: Any, items: Field, place: str) -> Any:
    if value is not None:
        return _value(value, items, f"{place}[]")
    if items.required:
        raise MisfitError("null_value", f"{place}[]")
    return None


def timestamp_text(value: str | float | datetime, unit: str) -> str | None:
    """The time as RFC 3339 text in UTC, cut to its unit; None if the unit cannot have it."""
    try:
        if isinstance(value, str):
            moment, nanoseconds = _from_text(value)
        elif isinstance(value, datetime):
            moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
            nanoseconds = value.microsecond * 1000
        else:
            scale: int = 10 ** _DIGITS[unit]
            seconds, rest = divmod(int(value), scale)
            moment, nanoseconds = _EPOCH + timedelta(seconds=seconds), rest * 10**9 // scale
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    if unit == "nanosecond" and moment.year not in _NANOSECOND_YEARS:
        return None
    return _text(moment, f"{nanoseconds:09d}"[: _DIGITS[unit]])


def _from_text(text: str) -> tuple[datetime, int]:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    day, time, fraction, zone = match.groups()
    return datetime.fromisoformat(f"{day}T{time}{zone.upper()}"), int(
        (fraction or "0").ljust(9, "0")
    )


def _text(moment: datetime, digits: str) -> str:
    """As many digits after the second as needed: none, three, six or nine."""
    while digits.endswith("000"):
        digits = digits[:-3]
    shown = moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    return f"{shown}.{digits}Z" if digits else f"{shown}Z"

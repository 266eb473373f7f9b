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
_PER_SECOND = {
    "second": 1,
    "millisecond": 1_000,
    "microsecond": 1_000_000,
    "nanosecond": 1_000_000_000,
}
DEFAULT_UNIT = "millisecond"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NANOSECONDS = 1_000_000_000


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
    """The time as RFC 3339 text in UTC; None if it is no time of the years 1 to 9999."""
    try:
        if isinstance(value, str):
            return _from_text(value)
        if isinstance(value, datetime):
            aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
            return _text(aware.replace(microsecond=0), value.microsecond * 1000)
        seconds, rest = divmod(int(value), _PER_SECOND[unit])
        moment = _EPOCH + timedelta(seconds=seconds)
        return _text(moment, rest * NANOSECONDS // _PER_SECOND[unit])
    except (ValueError, OverflowError):
        return None


def _from_text(text: str) -> str | None:
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    day, time, fraction, zone = match.groups()
    moment = datetime.fromisoformat(f"{day}T{time}{zone.upper()}")
    return _text(moment, int((fraction or "0").ljust(9, "0")))


def _text(moment: datetime, nanoseconds: int) -> str:
    """As many digits after the second as needed: none, three, six or nine."""
    shown = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    if nanoseconds:
        digits = f"{nanoseconds:09d}"
        while digits.endswith("000"):
            digits = digits[:-3]
        shown += f".{digits}"
    return f"{shown}Z"

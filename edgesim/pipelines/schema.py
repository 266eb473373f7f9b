"""Structured streams: schema validation of records, with the reason for each drop.

Source: the Pipelines documentation.  ``send`` also accepts a record that violates the schema; only
counters, by reason, show that it was dropped.  A stream stores the schema's fields only; others
are removed without a warning (measured on the platform in August 2026; not documented).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from edgesim.config.pipelines import Field

REASONS = ("missing_field", "null_value", "type_mismatch", "parse_failure")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def fault(record: dict[str, Any], fields: Sequence[Field]) -> str | None:
    """The reason to drop the record, one of REASONS; None for a valid record."""
    for field in fields:
        if field.name not in record:
            reason = "missing_field" if field.required else None
        elif record[field.name] is None:
            reason = "null_value" if field.required else None
        else:
            reason = value_fault(record[field.name], field)
        if reason is not None:
            return reason
    return None


def stripped(record: dict[str, Any], fields: Sequence[Field]) -> dict[str, Any]:
    """The valid record with the schema's fields only, in the schema's order, at every depth."""
    return {
        field.name: _stripped_value(record[field.name], field)
        for field in fields
        if field.name in record
    }


def _stripped_value(value: Any, field: Field) -> Any:
    if field.type == "struct" and isinstance(value, dict):
        return stripped(value, field.fields)
    if field.type == "list" and field.items is not None and isinstance(value, list):
        return [_stripped_value(item, field.items) for item in value]
    return value


def value_fault(value: Any, field: Field) -> str | None:
    """The reason why a value is not of the field's type, one of REASONS; None if it is."""
    match field.type:
        case "json":
            return None
        case "list":
            return _list_fault(value, field)
        case "struct":
            return fault(value, field.fields) if isinstance(value, dict) else "type_mismatch"
    accepts, parses = _SCALARS[field.type]
    if not accepts(value):
        return "type_mismatch"
    return None if parses(value) else "parse_failure"


def _list_fault(value: Any, field: Field) -> str | None:
    if not isinstance(value, list):
        return "type_mismatch"
    items = field.items
    if items is None:
        return None
    named = [{items.name: item} for item in value]
    return next((reason for each in named if (reason := fault(each, [items]))), None)


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    """True for an integral number: JavaScript has one kind of number, so 3.0 is 3."""
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


def _between(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: low <= value <= high


def _fits_float64(value: float) -> bool:
    try:
        float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False
    return True


def _fits_float32(value: float) -> bool:
    return _fits_float64(value) and abs(float(value)) <= _FLOAT32_MAX


def _any(value: Any) -> bool:
    return True


def _is_time(value: Any) -> bool:
    """True for RFC 3339 text, a Date, or a whole number since 1970."""
    return isinstance(value, str | datetime) or _is_whole(value)


def _parses_as_time(value: Any) -> bool:
    if not isinstance(value, str):
        return True
    if not _RFC_3339.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value.upper())
    except ValueError:  # for example month 13
        return False
    return True


def _parses_as_bytes(value: Any) -> bool:
    if isinstance(value, bytes):
        return True
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _parses_as_decimal(value: Any) -> bool:
    """True for up to 38 digits, as a number or as text, so that no digit is lost."""
    try:
        number = Decimal(value if isinstance(value, str) else repr(value))
    except InvalidOperation:
        return False
    return number.is_finite() and len(number.as_tuple().digits) <= 38


_FLOAT32_MAX = 3.4028234663852886e38
_BINARY = (lambda value: isinstance(value, str | bytes), _parses_as_bytes)
_SCALARS: dict[str, tuple[Callable[[Any], bool], Callable[[Any], bool]]] = {
    "string": (_is_string, _any),
    "bool": (lambda value: isinstance(value, bool), _any),
    "int32": (_is_whole, _between(-(1 << 31), (1 << 31) - 1)),
    "int64": (_is_whole, _between(-(1 << 63), (1 << 63) - 1)),
    "uint32": (_is_whole, _between(0, (1 << 32) - 1)),
    "uint64": (_is_whole, _between(0, (1 << 64) - 1)),
    "float32": (_is_number, _fits_float32),
    "float64": (_is_number, _fits_float64),
    "decimal128": (lambda value: _is_number(value) or _is_string(value), _parses_as_decimal),
    "timestamp": (_is_time, _parses_as_time),
    "binary": _BINARY,
    "bytes": _BINARY,
}
"""For each type: a test of the JSON kind, and a test that such a value is of the type."""

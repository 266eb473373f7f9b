"""Conversion of JSON lines to columns for the native protocol, by the table's column types.

msgspec decodes directly into a struct made for the table, several times faster than ``json.loads``.
A column missing in the rows has its type's zero, as in ClickHouse; one with a DEFAULT is left out
of the INSERT, so that the server fills it in.  Data that has such a column in some rows only cannot
be sent as columns and is refused.
"""

from __future__ import annotations

import datetime as dt
import decimal
import re
import uuid
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from edgesim.clickhouse.exceptions import NOT_IMPLEMENTED
from edgesim.errors import ClickHouseError

INCORRECT_DATA = 117
HTTP_CURE = "name the server as clickhouse+http://host:8123, where it reads the rows itself"
SKIP_UNKNOWN = "input_format_skip_unknown_fields"
NULL_AS_DEFAULT = "input_format_null_as_default"

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_WRAPPED = re.compile(r"LowCardinality\((.*)\)", re.DOTALL)
_NULLABLE = re.compile(r"Nullable\((.*)\)", re.DOTALL)
_ARRAY = re.compile(r"Array\((.*)\)", re.DOTALL)
# Pattern of the type, its JSON values as Python types, its zero (UNSET: none, field required).
_TYPES: list[tuple[str, Any, Any]] = [
    (r"U?Int\d+", int | bool, 0),
    (r"Float(32|64)", float, 0.0),
    (r"String|FixedString\(\d+\)", str, ""),
    (r"Bool", bool, False),
    (r"Date|Date32", dt.date, _EPOCH.date()),
    (r"DateTime(64)?(\(.*\))?", dt.datetime, _EPOCH),
    (r"Decimal\w*\(.*\)", decimal.Decimal, decimal.Decimal()),
    (r"UUID", uuid.UUID, uuid.UUID(int=0)),
    (r"IPv4", str, "0.0.0.0"),  # noqa: S104 (a value, not an address to bind)
    (r"IPv6", str, "::"),
    (r"Enum(8|16)\(.*\)", str | int, msgspec.UNSET),
]


class Column(msgspec.Struct, frozen=True):
    """A column of the table; ``filled`` if the server has a DEFAULT for it."""

    name: str
    kind: str
    filled: bool = False


class LineDecoder:
    """Decodes blocks of lines; ``settings`` are the statement's, merged over the server's."""

    def __init__(self, columns: Sequence[Column], settings: Mapping[str, str]) -> None:
        self._columns = list(columns)
        self._nulls = _is_on(settings, NULL_AS_DEFAULT)
        fields = [self._field(number, column) for number, column in enumerate(columns)]
        row = msgspec.defstruct(
            "Row",
            fields,
            rename={f"c{number}": column.name for number, column in enumerate(columns)},
            forbid_unknown_fields=not _is_on(settings, SKIP_UNKNOWN),
            kw_only=True,
            gc=False,
        )
        self._decoder: Any = msgspec.json.Decoder(row, strict=False)
        self._names = [f"c{number}" for number in range(len(columns))]
        self._absent: set[str] | None = None

    def decode(self, lines: bytes) -> list[list[Any]]:
        """Return the values of ``columns()``, by column; ClickHouseError for an invalid row."""
        try:
            rows = self._decoder.decode_lines(lines)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ClickHouseError(
                INCORRECT_DATA, f"Cannot read the rows: {error}. (INCORRECT_DATA)"
            ) from error
        first = self._absent is None
        if first:
            self._absent = set()
        found = []
        for column, name in zip(self._columns, self._names, strict=True):
            values = list(map(attrgetter(name), rows))
            if column.filled and self._left_out(column, values, first):
                continue
            found.append(self._without_nulls(column, values))
        return found

    def columns(self) -> list[Column]:
        """Return the columns that the rows contain; valid once a block has been decoded."""
        return [column for column in self._columns if column.name not in (self._absent or ())]

    def _field(self, number: int, column: Column) -> tuple[Any, ...]:
        kind, zero = _typed(column.kind)
        nullable = _NULLABLE.fullmatch(_unwrapped(column.kind))
        if nullable or self._nulls:
            kind |= None
        if column.filled:
            return f"c{number}", kind | msgspec.UnsetType, msgspec.UNSET
        if zero is msgspec.UNSET and not nullable:
            return f"c{number}", kind
        return f"c{number}", kind, None if nullable else _default(zero)

    def _left_out(self, column: Column, values: list[Any], first: bool) -> bool:
        """Return True if the server fills the column in; ClickHouseError if only in some rows."""
        assert self._absent is not None
        nullable = _NULLABLE.fullmatch(_unwrapped(column.kind))
        missing = sum(
            value is msgspec.UNSET or (value is None and not nullable) for value in values
        )
        if first and missing == len(values):
            self._absent.add(column.name)
        if missing != (len(values) if column.name in self._absent else 0):
            raise ClickHouseError(
                NOT_IMPLEMENTED,
                f"some rows have a value for {column.name} and some leave it to its DEFAULT, which "
                f"the native protocol cannot say in one insert; {HTTP_CURE}",
            )
        return column.name in self._absent

    def _without_nulls(self, column: Column, values: list[Any]) -> list[Any]:
        if not self._nulls or _NULLABLE.fullmatch(_unwrapped(column.kind)) or None not in values:
            return values
        zero = _typed(column.kind)[1]
        return [zero if value is None else value for value in values]


def _typed(kind: str) -> tuple[Any, Any]:
    """Return the Python type of a column type's JSON values, and its zero."""
    kind = _unwrapped(kind)
    if nullable := _NULLABLE.fullmatch(kind):
        return _typed(nullable[1])
    if array := _ARRAY.fullmatch(kind):
        inside: Any = _typed(array[1])[0]
        if _NULLABLE.fullmatch(_unwrapped(array[1])):
            inside |= None
        array_of: Any = list
        return array_of[inside], []
    for pattern, python, zero in _TYPES:
        if re.fullmatch(pattern, kind, re.DOTALL):
            return python, zero
    raise ClickHouseError(
        NOT_IMPLEMENTED,
        f"columns of type {kind} take no rows over the native protocol; {HTTP_CURE}",
    )


def _default(zero: Any) -> Any:
    return msgspec.field(default_factory=list) if zero == [] else zero


def _unwrapped(kind: str) -> str:
    wrapped = _WRAPPED.fullmatch(kind)
    return wrapped[1] if wrapped else kind


def _is_on(settings: Mapping[str, str], name: str) -> bool:
    return settings.get(name, "0").lower() in {"1", "true"}

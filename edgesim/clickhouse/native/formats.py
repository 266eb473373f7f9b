"""Writers of native protocol rows in ClickHouse's text formats.

The form of a value depends on its column's type and never on the value: the same column must not
be a number in one row and a string in the next.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from edgesim.clickhouse.exceptions import NOT_IMPLEMENTED
from edgesim.errors import ClickHouseError

UNKNOWN_FORMAT = 73
QUOTE_64BIT = "output_format_json_quote_64bit_integers"
Columns = Sequence[tuple[str, str]]
Row = Sequence[Any]
Rows = Sequence[Row]
_Field = Callable[[Any], str]

_WRAPPER = re.compile(r"(?:Nullable|LowCardinality)\((.*)\)", re.DOTALL)
_ARRAY = re.compile(r"Array\((.*)\)", re.DOTALL)
_NUMBER = re.compile(r"U?Int\d+|Float\d+|Decimal\w*(?:\(.*\))?")
_LARGE = re.compile(r"U?Int(?:64|128|256)")
_TEXT = re.compile(r"(?:Fixed)?String.*|Enum\d+\(.*|UUID|IPv[46]|Date|Date32", re.DOTALL)
_TIME64 = re.compile(r"DateTime64\((\d+).*\)")
_ESCAPES = {
    ord(plain): "\\" + letter for plain, letter in zip("\\\b\f\n\r\t\0'", "\\bfnrt0'", strict=True)
}


class FormatLayout(msgspec.Struct, frozen=True):
    """A format: text before, in, between and after the rows."""

    row: Callable[[Columns, bool], Callable[[Row], str]]
    head: Callable[[Columns], str] = lambda _: ""
    between: str = ""
    foot: Callable[[int], str] = lambda _: ""


class Writer:
    """Writes one response, block by block."""

    def __init__(self, layout: FormatLayout, columns: Columns, large_quoted: bool) -> None:
        self._layout = layout
        self._row = layout.row(columns, large_quoted)
        self._rows = 0
        self.head = _encoded(layout.head(columns))

    def write(self, rows: Rows) -> bytes:
        """Return the text of the next rows."""
        before = self._layout.between if self._rows and rows else ""
        self._rows += len(rows)
        return _encoded(before + self._layout.between.join(map(self._row, rows)))

    def foot(self) -> bytes:
        """Return the text after the last row."""
        return _encoded(self._layout.foot(self._rows))


def writer(name: str, settings: Mapping[str, str]) -> Callable[[Columns], Writer]:
    """Return a factory of writers for a format; ClickHouseError if it is not supported."""
    layout = _FORMATS.get(name.lower())
    if layout is None:
        known = "JSON, JSONCompact, JSONEachRow, TabSeparated(WithNames), CSV(WithNames)"
        raise ClickHouseError(
            UNKNOWN_FORMAT, f"Unknown format {name} over the native protocol; known: {known}"
        )
    large_quoted = settings.get(QUOTE_64BIT, "0").lower() in {"1", "true"}
    return lambda columns: Writer(layout, columns, large_quoted)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _json_line(columns: Columns, large_quoted: bool) -> Callable[[Row], str]:
    written = _json_object(columns, large_quoted)
    return lambda row: f"{written(row)}\n"


def _json_object(columns: Columns, large_quoted: bool) -> Callable[[Row], str]:
    fields = [_json_field(kind, large_quoted) for _, kind in columns]
    names = [f"{_json_text(name)}:" for name, _ in columns]
    return lambda row: "{" + ",".join(map(str.__add__, names, _written(fields, row))) + "}"


def _json_array(columns: Columns, large_quoted: bool) -> Callable[[Row], str]:
    fields = [_json_field(kind, large_quoted) for _, kind in columns]
    return lambda row: f"[{','.join(_written(fields, row))}]"


def _json_head(columns: Columns) -> str:
    meta = json.dumps([{"name": name, "type": kind} for name, kind in columns], ensure_ascii=False)
    return f'{{"meta":{meta},"data":['


def _json_foot(rows: int) -> str:
    return f'],"rows":{rows}}}\n'


def _json_field(kind: str, large_quoted: bool) -> _Field:
    kind = _bare(kind)
    if array := _ARRAY.fullmatch(kind):
        inside = _json_field(array[1], large_quoted)
        return _or_null("null", lambda value: f"[{','.join(map(inside, value))}]")
    if _LARGE.fullmatch(kind) and large_quoted:
        return _or_null("null", lambda value: f'"{value}"')
    plain = _plain(kind)
    if kind.startswith("Float"):
        return _or_null("null", lambda value: plain(value) if math.isfinite(value) else "null")
    if _NUMBER.fullmatch(kind) or kind == "Bool":
        return _or_null("null", plain)
    return _or_null("null", lambda value: _json_text(plain(value)))


def _json_text(text: str) -> str:
    return json.dumps(
        text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), ensure_ascii=False
    )


def _tab_row(columns: Columns, _: bool) -> Callable[[Row], str]:
    fields = [_tab_field(kind) for _, kind in columns]
    return lambda row: "\t".join(_written(fields, row)) + "\n"


def _tab_names(columns: Columns) -> str:
    return "\t".join(name.translate(_ESCAPES) for name, _ in columns) + "\n"


def _tab_field(kind: str) -> _Field:
    plain = _plain(kind)
    if _ARRAY.fullmatch(_bare(kind)):
        return _or_null("\\N", plain)
    return _or_null("\\N", lambda value: plain(value).translate(_ESCAPES))


def _csv_row(columns: Columns, _: bool) -> Callable[[Row], str]:
    fields = [_csv_field(kind) for _, kind in columns]
    return lambda row: ",".join(_written(fields, row)) + "\n"


def _csv_names(columns: Columns) -> str:
    return ",".join(_csv_text(name) for name, _ in columns) + "\n"


def _csv_field(kind: str) -> _Field:
    plain = _plain(kind)
    if _NUMBER.fullmatch(_bare(kind)) or _bare(kind) == "Bool":
        return _or_null("\\N", plain)
    return _or_null("\\N", lambda value: _csv_text(plain(value)))


def _csv_text(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _plain(kind: str) -> _Field:
    """Return a function from a value of the type to text without quotes; NULL only in arrays."""
    kind = _bare(kind)
    if array := _ARRAY.fullmatch(kind):
        inside = _element(array[1])
        return lambda value: f"[{','.join(map(inside, value))}]"
    if time64 := _TIME64.fullmatch(kind):
        digits = int(time64[1])
        return lambda value: (
            f"{value:%Y-%m-%d %H:%M:%S}" + f".{value:%f}000"[: digits + bool(digits)]
        )
    if kind.startswith("DateTime"):
        return lambda value: f"{value:%Y-%m-%d %H:%M:%S}"
    if kind == "Bool":
        return lambda value: str(value).lower()
    if kind.startswith("Decimal"):
        return lambda value: f"{value:f}"
    if kind == "Float32":
        return lambda value: _float(_shortest32(value))
    if kind.startswith("Float"):
        return lambda value: _float(repr(value))
    if _NUMBER.fullmatch(kind) or _TEXT.fullmatch(kind):
        return _text
    raise ClickHouseError(
        NOT_IMPLEMENTED,
        f"values of type {kind} are not written over the native protocol; name the server as "
        "clickhouse+http://host:8123",
    )


def _element(kind: str) -> _Field:
    plain, bare = _plain(kind), _bare(kind)
    if _NUMBER.fullmatch(bare) or _ARRAY.fullmatch(bare) or bare == "Bool":
        return _or_null("NULL", plain)
    return _or_null("NULL", lambda value: f"'{plain(value).translate(_ESCAPES)}'")


def _text(value: Any) -> str:
    # The client returns bytes for a String that is not UTF-8; they are written unchanged.
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _float(text: str) -> str:
    return text.removesuffix(".0").replace("e+", "e")


def _shortest32(value: float) -> str:
    """Return the shortest digits of the same 32-bit float."""
    for digits in range(1, 10):
        text = repr(float(f"{value:.{digits}g}"))
        if struct.pack("f", float(text)) == struct.pack("f", value):
            return text
    return repr(value)


def _bare(kind: str) -> str:
    while wrapped := _WRAPPER.fullmatch(kind):
        kind = wrapped[1]
    return kind


def _or_null(null: str, field: _Field) -> _Field:
    return lambda value: null if value is None else field(value)


def _written(fields: Sequence[_Field], row: Sequence[Any]) -> list[str]:
    return [field(value) for field, value in zip(fields, row, strict=True)]


_FORMATS = {
    "json": FormatLayout(_json_object, _json_head, ",", _json_foot),
    "jsoncompact": FormatLayout(_json_array, _json_head, ",", _json_foot),
    "jsoneachrow": FormatLayout(_json_line),
    "tabseparated": FormatLayout(_tab_row),
    "tsv": FormatLayout(_tab_row),
    "tabseparatedwithnames": FormatLayout(_tab_row, _tab_names),
    "tsvwithnames": FormatLayout(_tab_row, _tab_names),
    "csv": FormatLayout(_csv_row),
    "csvwithnames": FormatLayout(_csv_row, _csv_names),
}

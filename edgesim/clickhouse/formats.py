"""Rows of the native protocol as ClickHouse's text formats write them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any

from edgesim.errors import ClickHouseError

UNKNOWN_FORMAT = 73
Columns = Sequence[tuple[str, str]]
Writer = Callable[[Sequence[Sequence[Any]], Columns], bytes]


def writer(name: str) -> Writer:
    """The function that writes the format; ClickHouseError for one that is not here."""
    try:
        return _WRITERS[name.lower()]
    except KeyError:
        known = "JSON, JSONCompact, JSONEachRow, TabSeparated(WithNames), CSV(WithNames)"
        raise ClickHouseError(
            UNKNOWN_FORMAT, f"Unknown format {name} over the native protocol; known: {known}"
        ) from None


def _json_each_row(rows: Sequence[Sequence[Any]], columns: Columns) -> bytes:
    names = [name for name, _ in columns]
    return "".join(
        _dump(dict(zip(names, (_json_value(value) for value in row), strict=True))) + "\n"
        for row in rows
    ).encode()


def _json(rows: Sequence[Sequence[Any]], columns: Columns) -> bytes:
    names = [name for name, _ in columns]
    data = [dict(zip(names, map(_json_value, row), strict=True)) for row in rows]
    return _document(data, columns)


def _json_compact(rows: Sequence[Sequence[Any]], columns: Columns) -> bytes:
    return _document([[_json_value(value) for value in row] for row in rows], columns)


def _document(data: list[Any], columns: Columns) -> bytes:
    meta = [{"name": name, "type": kind} for name, kind in columns]
    return (_dump({"meta": meta, "data": data, "rows": len(data)}) + "\n").encode()


def _json_value(value: Any) -> Any:
    # 64-bit integers are strings in ClickHouse's JSON, so that JavaScript keeps their digits.
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 31:
        return str(value)
    if isinstance(value, list | tuple):
        return [_json_value(each) for each in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return _text(value)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _tab_separated(rows: Sequence[Sequence[Any]], columns: Columns) -> bytes:
    return "".join("\t".join(map(_tab_value, row)) + "\n" for row in rows).encode()


def _tab_separated_with_names(rows: Sequence[Sequence[Any]], columns: Columns) -> bytes:
    return _tab_separated([[name for name, _ in columns]], columns) + _tab_separated(rows, columns)


_TAB_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})


def _tab_value(value: Any) -> str:
    return "\\N" if value is None else _text(value).translate(_TAB_ESCAPES)


def _csv(rows: Sequence[Sequence[Any]], columns: Columns) -> bytes:
    out = io.StringIO()
    table = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    for row in rows:
        table.writerow(
            [
                "\\N"
                if value is None
                else value
                if isinstance(value, int | float)
                else _text(value)
                for value in row
            ]
        )
    return out.getvalue().encode()


def _csv_with_names(rows: Sequence[Sequence[Any]], columns: Columns) -> bytes:
    return _csv([[name for name, _ in columns]], columns) + _csv(rows, columns)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | tuple):
        return "[" + ",".join(_element(each) for each in value) + "]"
    return str(value)


def _element(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return "NULL" if value is None else _text(value)


_WRITERS: dict[str, Writer] = {
    "json": _json,
    "jsoncompact": _json_compact,
    "jsoneachrow": _json_each_row,
    "tabseparated": _tab_separated,
    "tsv": _tab_separated,
    "tabseparatedwithnames": _tab_separated_with_names,
    "tsvwithnames": _tab_separated_with_names,
    "csv": _csv,
    "csvwithnames": _csv_with_names,
}

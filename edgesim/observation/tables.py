"""Search of ClickHouse tables: rows with the text in any column."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from edgesim.clickhouse.statements import named, quoted
from edgesim.errors import EdgesimError
from edgesim.model import HttpRequest, HttpResponse, read_all
from edgesim.observation.sighting import Needle, Sighting

ROWS_MAX = 20
"""Rows of one table that are shown."""
SECONDS_MAX = 5
"""Time for one table."""
_SETTINGS = f"SETTINGS max_execution_time = {SECONDS_MAX}"
_COLUMNS = """SELECT table, name, default_expression FROM system.columns
WHERE database = currentDatabase() AND table IN (
    SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'
) FORMAT JSONEachRow"""

Query = Callable[[HttpRequest], Awaitable[HttpResponse]]


class _Column(msgspec.Struct):
    table: str
    name: str
    default_expression: str = ""


async def in_tables(query: Query, needle: Needle) -> AsyncIterator[Sighting]:
    """Rows of all tables of the current database."""
    columns = [msgspec.convert(row, _Column) for row in await _rows(query, _COLUMNS)]
    for table in sorted({column.table for column in columns}):
        own = [column for column in columns if column.table == table]
        try:
            found = await _rows(query, _search(table, own, needle))
        except EdgesimError as error:
            yield Sighting("not searched", f"table {table}", detail={"reason": str(error)})
            continue
        # A column that is filled with the time of the insert says when the row came.
        clocks = [each.name for each in own if each.default_expression.startswith("now")]
        for row in found:
            at = str(row[clocks[0]]).replace(" ", "T") + "Z" if clocks else None
            yield Sighting("table", table, at, row)


def _search(table: str, columns: list[_Column], needle: Needle) -> str:
    texts = ", ".join(f"ifNull(toString({named(each.name)}), '')" for each in columns)
    return (  # names and texts are quoted
        f"SELECT * FROM {named(table)} "  # noqa: S608
        f"WHERE arrayExists(text -> position(text, {quoted(needle.text)}) > 0, [{texts}]) "
        f"LIMIT {ROWS_MAX} {_SETTINGS} FORMAT JSONEachRow"
    )


async def _rows(query: Query, sql: str) -> list[dict[str, Any]]:
    response = await query(HttpRequest("POST", "http://clickhouse/", [], sql.encode()))
    body = await read_all(response.body)
    if response.status != 200:
        raise EdgesimError(body.decode("utf-8", "replace").strip().partition("\n")[0])
    return [msgspec.json.decode(line) for line in body.splitlines() if line]

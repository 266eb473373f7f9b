"""What a replay must come to: a TOML file of response counts and SQL results.

[responses]
200 = 970
400 = 30
[sql]
"SELECT count() FROM events" = 970
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgesim.config.wrangler import convert, read_table


class Expectations(msgspec.Struct, forbid_unknown_fields=True):
    """The file: responses by status, and for each statement its single value, row or rows."""

    responses: dict[str, int] = {}
    sql: dict[str, Any] = {}


class Mismatch(msgspec.Struct, frozen=True):
    """One thing that is not as expected."""

    what: str
    expected: Any
    got: Any


def read(path: Path) -> Expectations:
    """ConfigError names file and key."""
    expectations: Expectations = convert(path, read_table(path), Expectations)
    return expectations


async def compare(
    expected: Expectations,
    responses: Mapping[int, int],
    sql: Callable[[str], Awaitable[str]],
) -> list[Mismatch]:
    """Everything that differs; ``sql`` gives a statement's answer in JSONCompact."""
    mismatches = []
    if expected.responses:
        wanted = {int(status): count for status, count in expected.responses.items()}
        for status in sorted(wanted.keys() | responses.keys()):
            if wanted.get(status, 0) != responses.get(status, 0):
                mismatches.append(  # noqa: PERF401 (a comprehension would hide the condition)
                    Mismatch(f"responses {status}", wanted.get(status, 0), responses.get(status, 0))
                )
    for statement, wanted_value in expected.sql.items():
        got = _shaped(json.loads(await sql(statement))["data"])
        if _plain(got) != _plain(wanted_value):
            mismatches.append(Mismatch(statement, wanted_value, got))
    return mismatches


def _shaped(rows: list[list[Any]]) -> Any:
    """One value if that is all there is, one row, or the rows."""
    if len(rows) != 1:
        return rows
    return rows[0][0] if len(rows[0]) == 1 else rows[0]


def _plain(value: Any) -> Any:
    """ClickHouse writes 64-bit integers as strings in JSON: compare what they say."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return str(value)

"""An insert as a tap shows it: the statement, its Worker, its rows and the start of its data."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Any

from edgesim.clickhouse import statements
from edgesim.clickhouse.driver import Statement
from edgesim.model import Body, Stream

KEPT_BYTES_MAX = 8_192
"""Bytes of the data that are kept, as sent."""
SHOWN_BYTES_MAX = 4_096
LINES_MAX = 10


class InsertWatch:
    """Keeps the start of an insert's data while it passes."""

    def __init__(self, sql: str, encoding: str | None, caller: str) -> None:
        self._sql = sql
        self._encoding = encoding
        self._caller = caller
        self._kept = bytearray()

    def over(self, data: Body) -> Body:
        """The same data, watched."""
        if isinstance(data, bytes):
            self._kept += data[:KEPT_BYTES_MAX]
            return data
        return Stream(self._passing(data), data.length)

    async def _passing(self, data: Stream) -> AsyncIterator[bytes]:
        async for chunk in data:
            self._kept += chunk[: KEPT_BYTES_MAX - len(self._kept)]
            yield chunk

    def record(self, rows: int | None) -> dict[str, Any]:
        """The record for readers."""
        lines = self._start().decode("utf-8", "replace").split("\n")[:LINES_MAX]
        who = {"worker": self._caller} if self._caller else {}
        return {**who, "sql": self._sql, "rows": rows, "data": [line for line in lines if line]}

    def _start(self) -> bytes:
        if self._encoding is None:
            return bytes(self._kept[:SHOWN_BYTES_MAX])
        try:
            return zlib.decompressobj(31).decompress(self._kept, SHOWN_BYTES_MAX)
        except zlib.error:
            return b""  # the database refuses it too, if it reads so far


def watch(statement: Statement, caller: str) -> InsertWatch | None:
    """Watch the statement's data; None if it is not an insert."""
    if statements.as_insert(statement.sql) is None:
        return None
    found = InsertWatch(" ".join(statement.sql.split()), statement.encoding, caller)
    statement.data = found.over(statement.data)
    return found

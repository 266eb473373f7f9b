"""The interface of ClickHouse drivers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import msgspec

from edgesim.model import Body


class Statement(msgspec.Struct):
    """One statement as the HTTP interface receives it.

    ``sql`` may end in ``FORMAT x`` (of the data for an INSERT, of the response otherwise); ``data``
    is an INSERT's input, compressed by ``encoding`` ("gzip" or None).  ``query_id`` is for servers,
    which run one statement of an id at a time.
    """

    sql: str
    data: Body = b""
    encoding: str | None = None
    default_format: str = "TabSeparated"
    database: str | None = None
    settings: Mapping[str, str] = {}
    query_id: str | None = None


class QueryResult(msgspec.Struct):
    """A statement's result: streamed rows in ``format``; ``written_rows`` is None if unknown."""

    body: AsyncIterator[bytes]
    format: str
    written_rows: int | None = None


class ClickHouseDriver(Protocol):
    """A database that runs statements.

    A module exports ``open_clickhouse(url)``, an async context manager that yields a driver, and
    declares the Properties of edgesim.drivers.  Nothing is connected or started before the first
    statement.
    """

    async def execute(self, statement: Statement) -> QueryResult:
        """Run a statement.

        Raises ClickHouseError with the database's code and text; RunError if the database cannot be
        reached.
        """

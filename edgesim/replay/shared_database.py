"""One database engine for many replays, each with its own database.

An engine takes half a second to start, a database in a running one milliseconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from edgesim.clickhouse import statements
from edgesim.clickhouse.driver import ClickHouseDriver, QueryResult, Statement


class InDatabase:
    """A driver whose statements use ``database`` unless they name another."""

    def __init__(self, engine: ClickHouseDriver, database: str) -> None:
        self._engine = engine
        self._database = database
        self._created = False

    async def execute(self, statement: Statement) -> QueryResult:
        """See ClickHouseDriver."""
        if not self._created:
            self._created = True
            await _do(self._engine, f"CREATE DATABASE {statements.named(self._database)}")
        own = msgspec.structs.replace(statement, database=statement.database or self._database)
        return await self._engine.execute(own)

    async def drop(self) -> None:
        """Drop the database, if it was created."""
        if self._created:
            self._created = False
            await _do(self._engine, f"DROP DATABASE {statements.named(self._database)}")


@asynccontextmanager
async def database(engine: ClickHouseDriver, name: str) -> AsyncIterator[InDatabase]:
    """An empty database of that name, created by the first statement and dropped at the end."""
    own = InDatabase(engine, name)
    try:
        yield own
    finally:
        await own.drop()


async def _do(engine: ClickHouseDriver, sql: str) -> None:
    async for _ in (await engine.execute(Statement(sql))).body:
        pass


_: type[ClickHouseDriver] = InDatabase

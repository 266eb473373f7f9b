"""Mutations of the embedded engine, which go on in the background, have a statement's time."""

from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from edgesim.clickhouse.chdb.driver import ChdbClickHouse
from edgesim.clickhouse.chdb.limits import StatementLimits
from edgesim.clickhouse.driver import Statement
from edgesim.errors import ClickHouseError

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        "not __import__('importlib.util').util.find_spec('chdb')", reason="chdb is not installed"
    ),
]
SLOW = "length(arrayFilter(y -> cityHash64(y) = n, range(20000)))"
"""Some 0.1 ms of a processor for each row, within one block."""
WAIT_SECONDS = 120


@pytest.fixture
async def engine(tmp_path: Path):
    database = ChdbClickHouse(tmp_path / "db", StatementLimits(max_execution_time=2))
    await run(database, "CREATE TABLE t (n UInt64, x String) ENGINE = MergeTree ORDER BY n")
    await run(database, "INSERT INTO t SELECT number, '' FROM numbers(200000)")
    yield database
    await database.close()


async def run(engine: ChdbClickHouse, sql: str, **settings: str) -> str:
    answer = await engine.execute(Statement(sql, settings=settings))
    return b"".join([chunk async for chunk in answer.body]).decode().strip()


async def begin(engine: ChdbClickHouse, sql: str) -> None:
    """Run a statement that begins a mutation, whether or not it waits for it."""
    with suppress(ClickHouseError):
        await run(engine, sql)


async def until_quiet(engine: ChdbClickHouse) -> None:
    """Wait until no mutation is left, and nothing works on one."""
    left = (
        "SELECT (SELECT count() FROM system.mutations WHERE NOT is_done)"
        " + (SELECT count() FROM system.merges WHERE is_mutation)"
    )
    with anyio.fail_after(WAIT_SECONDS):
        while await run(engine, left) != "0":  # noqa: ASYNC110 (no event exists)
            await anyio.sleep(0.1)


@pytest.mark.parametrize(
    "sql",
    [
        f"ALTER TABLE t UPDATE x = toString({SLOW}) WHERE 1",
        f"ALTER TABLE t UPDATE x = toString({SLOW}) WHERE 1 SETTINGS mutations_sync = 2",
        f"ALTER TABLE t DELETE WHERE {SLOW} = 1",
        f"DELETE FROM t WHERE {SLOW} = 1",
    ],
)
async def test_an_endless_mutation_is_ended(engine, sql):
    """The table is as before, and can be changed again."""
    await begin(engine, sql)
    await until_quiet(engine)
    assert await run(engine, "SELECT count(), countIf(x != '') FROM t") == "200000\t0"
    await run(engine, "ALTER TABLE t UPDATE x = 'a' WHERE n = 1 SETTINGS mutations_sync = 2")
    assert await run(engine, "SELECT countIf(x = 'a') FROM t") == "1"


async def test_a_mutation_that_fails_for_ever_does_not_stay(engine):
    """The engine would try it again and again."""
    sql = "ALTER TABLE t UPDATE x = throwIf(n = 7)::String WHERE 1"
    await begin(engine, sql)
    await until_quiet(engine)
    await run(engine, "ALTER TABLE t UPDATE x = 'b' WHERE n = 2 SETTINGS mutations_sync = 2")


async def test_an_ordinary_mutation_is_done(engine):
    """One within the time changes the table."""
    await run(engine, "ALTER TABLE t UPDATE x = toString(n) WHERE n < 1000")
    await until_quiet(engine)
    assert await run(engine, "SELECT countIf(x = toString(n)) FROM t") == "1000"

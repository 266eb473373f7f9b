"""Iceberg tables of catalog sinks over the embedded R2 drivers: rows once, whatever fails when."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from edgesim.errors import EdgesimError, RunError
from edgesim.model import read_all
from edgesim.pipelines.iceberg.catalog import (
    FILE_BYTES_MAX,
    INGEST_COLUMN,
    CatalogError,
)
from edgesim.pipelines.iceberg.engine import IcebergEngine, TableError
from edgesim.pipelines.sinks.catalog_table import SINK
from edgesim.pipelines.sql.engine import SqlEngine
from edgesim.pipelines.streams.window import LAST_SEGMENT
from tests.lake_world import PLAY, Lake, opened_lake

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for all tests: the engines' processes belong to it."""
    return "asyncio"


@pytest.fixture(scope="module")
async def engines(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[IcebergEngine, SqlEngine]]:
    """Engines for all tests: the start of their processes takes longer than most of the tests."""
    iceberg, sql = IcebergEngine(), SqlEngine(tmp_path_factory.mktemp("scratch") / "sql")
    yield iceberg, sql
    await iceberg.close()
    await sql.close()


@pytest.fixture(params=["memory:", "file:"])
async def lake(
    request: pytest.FixtureRequest, tmp_path: Path, engines: tuple[IcebergEngine, SqlEngine]
) -> AsyncIterator[Lake]:
    url = f"file:{tmp_path}/r2" if request.param == "file:" else request.param
    async with opened_lake(url, tmp_path, engines) as found:
        yield found


async def test_windows_are_snapshots_with_their_rows(lake):
    """Each window adds its rows, of all types, with the time of its first record."""
    sink = lake.sink()
    for name in ("a", "b"):
        written = await sink.write(lake.window(PLAY | {"id": name}, {"id": f"{name} null"}))
        assert (written.rows, written.files) == (2, 1)
    rows = sorted(await lake.rows(), key=lambda row: row["id"])
    assert [row["id"] for row in rows] == ["a", "a null", "b", "b null"]
    times = [row.pop(INGEST_COLUMN) for row in rows]
    assert times[0] == times[1] < times[2] == times[3]
    first = rows[0]
    assert first.pop("at").isoformat() == "2026-11-29T10:00:00.123456"  # Iceberg's microseconds
    assert first == {name: value for name, value in PLAY.items() if name != "at"}
    assert all(value is None for name, value in rows[1].items() if name != "id")


async def test_the_keys_are_those_of_the_platform(lake):
    """Everything is below the reserved prefix, in folders for data and metadata."""
    await lake.sink().write(lake.window(PLAY))
    keys = [each.key for each in (await lake.bucket.list()).objects]
    assert all(key.startswith("__r2_data_catalog/") for key in keys)
    folders = {key.split("/")[3] for key in keys if not key.endswith("/catalog.json")}
    assert folders == {"data", "metadata"}


async def test_a_repeated_window_is_stored_once(lake):
    """A window that an earlier run has committed is recognised, with its last segment."""
    window = lake.window(PLAY)
    await lake.sink().write(window)
    again = await lake.sink().write(window)
    assert (again.rows, again.files, again.last) == (0, 0, window.last)
    assert len(await lake.rows()) == 1


@pytest.mark.parametrize("after", [False, True])
async def test_a_failure_at_each_put_loses_and_repeats_nothing(lake, after):
    """The store fails at one write after the other; the window is written again each time."""
    lake.bucket.after = after
    failing = 0
    while True:
        failing += 1
        lake.bucket.failing, lake.bucket.puts = failing, 0
        window = lake.window({"id": str(failing), "n": failing})
        try:
            await lake.sink().write(window)
        except RunError:
            lake.bucket.failing = 0
            await lake.sink().write(window)
        else:
            break  # fewer writes than that
    assert failing > 5
    found = sorted(row["n"] for row in await lake.rows())
    assert found == list(range(1, failing + 1))
    keys = [each.key for each in (await lake.bucket.list()).objects]
    files = [key.rpartition("/") for key in keys if key.endswith(".metadata.json")]
    versions = [(folder, name.partition("-")[0]) for folder, _, name in files]
    assert len(versions) == len(set(versions)) > failing


DEEP = "[" * 100_000
LARGE = " " * (FILE_BYTES_MAX + 1)


@pytest.mark.parametrize("content", ["garbage", DEEP, '{"a": ' + DEEP, LARGE, "{}", "\ud800"])
async def test_files_that_a_worker_has_replaced_stop_only_their_table(lake, content):
    """Whatever the catalog or a table's metadata holds, the window is an error, and kept."""
    sink = lake.sink()
    await sink.write(lake.window(PLAY))
    catalog = lake.catalog()
    table = catalog.key_of((await catalog.load("games\x1feu", "plays")).location)
    state = f"{catalog.folder}/catalog.json"
    # The table first: each write that succeeds has another file.  "{}" is a catalog without tables.
    for number, key in enumerate([table] if content == "{}" else [table, state]):
        kept = await read_all((await lake.bucket.get(key)).body)
        await lake.bucket.put(key, content.encode(errors="surrogatepass"))
        window = lake.window({"id": str(number)})
        with pytest.raises(EdgesimError):
            await sink.write(window)
        await lake.bucket.put(key, kept)
        await sink.write(window)
        assert [row["id"] for row in await lake.rows()].count(str(number)) == 1


@pytest.mark.parametrize("number", ["x", "9" * 5000, "-1", ""])
async def test_a_window_whose_segment_is_no_number_is_known(lake, number):
    """A snapshot's summary that a Worker has changed names no segment."""
    window = lake.window(PLAY)
    await lake.sink().write(window)
    loaded = await lake.catalog().load("games\x1feu", "plays")
    metadata = json.loads(loaded.content)
    metadata["snapshots"][0]["summary"][LAST_SEGMENT] = number
    await lake.catalog().write(loaded.location, json.dumps(metadata).encode())
    assert (await lake.sink().write(window)).last == window.last


async def test_writers_at_the_same_time_lose_nothing(lake):
    """Two nodes commit to one table: each begins again if the other was faster."""
    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(lake.sink().write, lake.window({"id": str(number)}))
    assert sorted(row["id"] for row in await lake.rows()) == [str(each) for each in range(8)]


async def test_no_rows_are_no_snapshot(lake):
    """A window whose rows are all filtered out leaves the table as it is."""
    written = await lake.sink(sql="SELECT * FROM s WHERE n > 100").write(lake.window(PLAY))
    assert (written.rows, written.files) == (0, 0)
    assert await lake.rows() == []


async def test_a_table_of_somebody_else_is_refused(lake):
    """Neither another sink's table nor a client's is written to."""
    await lake.sink("other").prepare()
    with pytest.raises(TableError, match="was made by sink 'other'; name another table"):
        await lake.sink().prepare()


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELECT id, n FROM s", "needs other"),
        ("SELECT id, CAST(n AS BIGINT) AS n, at, tags, geo FROM s", "lacks n int64"),
        ("SELECT *, 1 AS more FROM s", "lacks more int64"),
    ],
)
async def test_another_statement_needs_another_table(lake, sql, problem):
    """Columns that differ are named; optional ones that are missing in SQL become null."""
    await lake.sink(sql="SELECT *, n IS NULL AS other FROM s").prepare()
    with pytest.raises(TableError, match=problem):
        await lake.sink(sql=sql).prepare()


async def test_a_column_that_a_client_adds_is_null(lake):
    """A table may have more optional columns than the statement."""
    await lake.sink(sql="SELECT id, n FROM s").write(lake.window(PLAY))
    await lake.sink(sql="SELECT id FROM s").write(lake.window({"id": "b"}))
    assert sorted((row["id"], row["n"]) for row in await lake.rows()) == [("a", -5), ("b", None)]


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELECT id, NULL AS nothing FROM s", "column 'nothing': Iceberg has no null"),
        ("SELECT id, INTERVAL '1' DAY AS span FROM s", "column 'span': Iceberg has no "),
        (f"SELECT id, n AS {INGEST_COLUMN} FROM s", f"column '{INGEST_COLUMN}': the sink adds it"),
    ],
)
async def test_columns_that_iceberg_cannot_have(lake, sql, problem):
    """The error names the column, and no table is made."""
    with pytest.raises(TableError, match=problem):
        await lake.sink(sql=sql).prepare()
    with pytest.raises(CatalogError, match=r"no table games\.eu\.plays"):
        await lake.catalog().load("games\x1feu", "plays")


async def test_the_process_starts_anew_after_its_end(lake):
    """A request that finds the process gone fails; the next one is served."""
    sink = lake.sink()
    await sink.prepare()
    process = lake.iceberg._process
    assert process is not None
    process.kill()
    await process.wait()
    await sink.write(lake.window(PLAY))
    assert len(await lake.rows()) == 1


async def test_the_sink_is_in_the_table(lake):
    """A property names the sink, so that a restart knows its table."""
    await lake.sink().prepare()
    loaded = await lake.catalog().load("games\x1feu", "plays")
    assert json.loads(loaded.content)["properties"][SINK] == "table"

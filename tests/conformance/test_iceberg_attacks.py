"""Damaged Iceberg tables: each attack stops its sink only, within limits, and loses no row."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgesim.config.iceberg_limits import IcebergLimits
from edgesim.errors import EdgesimError, RunError
from edgesim.model import read_all
from edgesim.pipelines.iceberg import wire
from edgesim.pipelines.iceberg.catalog import head_of
from edgesim.pipelines.iceberg.engine import IcebergEngine
from edgesim.pipelines.sql.engine import SqlEngine
from edgesim.r2.bucket import R2ObjectBody
from tests.conformance.iceberg_attacks import ATTACKS
from tests.lake_world import PLAY, Lake, opened_lake

pytestmark = pytest.mark.anyio

LIMITS = IcebergLimits(request_cpu_seconds=2.0, memory_bytes=256 << 20)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for all tests: the engines' processes belong to it."""
    return "asyncio"


@pytest.fixture(scope="module")
async def engines(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[IcebergEngine, SqlEngine]]:
    iceberg, sql = IcebergEngine(LIMITS), SqlEngine(tmp_path_factory.mktemp("scratch") / "sql")
    yield iceberg, sql
    await iceberg.close()
    await sql.close()


@pytest.fixture
async def lake(tmp_path: Path, engines: tuple[IcebergEngine, SqlEngine]) -> AsyncIterator[Lake]:
    async with opened_lake("memory:", tmp_path, engines) as found:
        yield found


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_is_an_error_and_the_window_is_kept(lake: Lake, name: str):
    """The window fails with the reason; once the file is mended its row is stored, once."""
    attack = ATTACKS[name]
    sink = lake.sink()
    await sink.write(lake.window(PLAY))
    catalog = lake.catalog()
    loaded = await catalog.load("games\x1feu", "plays")
    listed = head_of(loaded.content).manifest_list
    key = catalog.key_of(listed if attack.of_the_list else loaded.location)
    stored = await lake.bucket.get(key)
    assert isinstance(stored, R2ObjectBody)
    kept = await read_all(stored.body)
    await lake.bucket.put(key, attack.change(kept))
    window = lake.window({"id": "late"})
    with pytest.raises(EdgesimError) as failed:
        await sink.write(window)
    assert attack.problem in str(failed.value)
    assert "\n" not in str(failed.value)
    assert len(str(failed.value)) < 1000
    await lake.bucket.put(key, kept)
    await sink.write(window)
    await sink.write(window)
    assert sorted(row["id"] for row in await lake.rows()) == ["a", "late"]


async def test_the_next_request_is_served_after_one_over_the_limit(lake: Lake):
    """Another table is not affected: a new process serves it."""
    request = wire.Commit(b"", "", b'{"updates": [' + b'"x",' * 12_000_000 + b'"x"]}', 0)
    with pytest.raises(RunError, match="the Iceberg process ended during Commit: it needs more "):
        await lake.iceberg.ask(request, wire.Metadata)
    await lake.sink().write(lake.window(PLAY))
    assert len(await lake.rows()) == 1

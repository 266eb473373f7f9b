"""A dataset's points while ClickHouse is away, and across a kill of the platform."""

import json
from contextlib import asynccontextmanager

import anyio
import pytest

from edgesim.analytics import dataset as module
from edgesim.analytics.dataset import DataPoint, Dataset
from edgesim.clickhouse.driver import QueryResult
from edgesim.clickhouse.gateway import Gateway
from edgesim.config.analytics import DatasetConfig, check_datasets
from edgesim.errors import ConfigError, RunError
from edgesim.model import iterate, read_all
from edgesim.replay.virtual_clock import VirtualClock
from edgesim.replay.virtual_loop import run_virtual


class Database:
    """A ClickHouse that is away for its first inserts, and may store one without a reply."""

    def __init__(self, away=0, silent=0):
        self.away = away
        self.silent = silent
        self.inserts = []
        """Token and rows of each insert that was stored."""

    async def execute(self, statement):
        rows = (await read_all(statement.data)).splitlines()
        if statement.sql.startswith("INSERT"):
            self.away -= 1
            if self.away >= 0:
                raise RunError("ClickHouse is out of reach")
            token = statement.settings["insert_deduplication_token"]
            self.inserts.append((token, [json.loads(row) for row in rows]))
            self.silent -= 1
            if self.silent >= 0:
                raise RunError("ClickHouse does not answer")
        return QueryResult(iterate(b""), "TabSeparated")


def in_virtual_time(scene, database, folder):
    """Run the scene with an opener of the dataset and the loop."""

    async def main(loop):
        clock = VirtualClock(loop, 1)

        @asynccontextmanager
        async def opened():
            dataset = Dataset("weather", folder, Gateway(database), clock)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(dataset.stream.run)
                yield dataset
                tasks.cancel_scope.cancel()
            dataset.stream.close()

        await scene(opened)

    run_virtual(main, 1, 1_767_225_600)


def test_points_wait_for_clickhouse(tmp_path):
    """An insert is retried until ClickHouse is back; an unanswered one keeps its token."""
    database = Database(away=5, silent=1)

    async def scene(opened):
        async with opened() as dataset:
            for number in range(3):
                await dataset.write(DataPoint(index=f"i{number}", doubles=[float("-inf"), 0.5]))
            await anyio.sleep(8)
            assert (dataset.pending, dataset.rows) == (3, 0)
            assert "out of reach" in dataset.problem
            await dataset.stream.roll()
            assert (dataset.pending, dataset.rows, dataset.problem) == (0, 3, "")

    in_virtual_time(scene, database, tmp_path)
    (first, rows), (second, again) = database.inserts
    assert (first, rows) == (second, again)
    assert [row["index1"] for row in rows] == ["i0", "i1", "i2"]
    assert rows[0] == {
        "timestamp": 1_767_225_600,
        "index1": "i0",
        "double1": "-inf",
        "double2": 0.5,
    }


def test_points_survive_a_kill(tmp_path):
    """A point is durable when the write has returned: the next run inserts it, once."""
    database = Database(away=1)

    async def scene(opened):
        async with opened() as dataset:
            await dataset.write(DataPoint(blobs=["kept"]))
        assert not database.inserts
        async with opened() as dataset:
            assert dataset.pending == 1
            await dataset.stream.roll()
        async with opened() as dataset:
            assert dataset.pending == 0

    in_virtual_time(scene, database, tmp_path)
    assert [row["blob1"] for _, rows in database.inserts for row in rows] == ["kept"]


def test_points_beyond_the_limit_of_the_log_are_dropped(tmp_path, monkeypatch):
    """The log is bounded during an outage; dropped points are counted, and no write fails."""
    monkeypatch.setattr(module, "BUFFER_BYTES_MAX", 2_000)
    database = Database(away=3)

    async def scene(opened):
        async with opened() as dataset:
            for _ in range(5):
                await dataset.write(DataPoint(blobs=["x" * 990]))
            assert (dataset.counts.points, dataset.counts.dropped) == (2, 3)
            await dataset.stream.roll()
            await dataset.write(DataPoint(blobs=["later"]))
            assert dataset.counts.points == 3

    in_virtual_time(scene, database, tmp_path)


@pytest.mark.parametrize("name", ["", "a b", "-a", "../a", "x" * 101, "é"])
def test_a_dataset_has_a_name_of_a_table(tmp_path, name):
    """The error names the file and the key."""
    datasets = [DatasetConfig("ONE"), DatasetConfig("TWO", name)]
    with pytest.raises(ConfigError, match=r"wrangler.json: analytics_engine_datasets\[1\].dataset"):
        check_datasets(tmp_path / "wrangler.json", datasets)
    assert datasets[0].name == "ONE"

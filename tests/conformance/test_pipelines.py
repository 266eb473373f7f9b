"""Pipelines over every embedded R2 driver: from send to object."""

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from edgesim import urls
from edgesim.clock import Clock
from edgesim.config.pipelines import PipelineConfig
from edgesim.errors import PlatformError, RunError
from edgesim.model import read_all
from edgesim.pipelines.pipeline import SEND_BYTES_MAX, Pipeline
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.r2.driver import DRIVERS
from edgesim.r2.notifications import Notifications

pytestmark = pytest.mark.anyio

NEVER = PipelineConfig(bucket="events", max_seconds=3600)


class House:
    """A bucket that outlives Pipelines, and Pipelines over it."""

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        self.bucket = bucket
        self.folder = folder
        self.clock = Clock()

    def pipeline(self, config: PipelineConfig = NEVER, bucket: Any = None) -> Pipeline:
        return Pipeline("events", config, bucket or self.bucket, self.folder, self.clock)

    @asynccontextmanager
    async def running(
        self, config: PipelineConfig = NEVER, bucket: Any = None
    ) -> AsyncIterator[Pipeline]:
        pipeline = self.pipeline(config, bucket)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pipeline.run)
            yield pipeline
            tasks.cancel_scope.cancel()
        pipeline.close()

    async def objects(self) -> dict[str, list[Any]]:
        """Key -> records of every object."""
        found = {}
        for each in (await self.bucket.list()).objects:
            stored = await self.bucket.get(each.key)
            assert isinstance(stored, R2ObjectBody)
            data = await read_all(stored.body)
            text = gzip.decompress(data) if each.key.endswith(".gz") else data
            found[each.key] = [json.loads(line) for line in text.splitlines()]
        return found

    async def until_objects(self, count: int) -> dict[str, list[Any]]:
        with anyio.fail_after(10):
            while len(found := await self.objects()) < count:
                await anyio.lowlevel.checkpoint()
        return found


@pytest.fixture(params=["memory:", "file:"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    url = f"file:{tmp_path}/r2" if request.param == "file:" else request.param
    clock = Clock()
    open_r2 = urls.opener("r2", url, DRIVERS)
    async with open_r2(url, clock, tmp_path / "local") as driver:
        bucket = Bucket("events", driver, clock, Notifications({}, clock, "account"))
        yield House(bucket, tmp_path / "log")


async def test_rolled_records_are_one_object_in_order(house):
    """Everything sent before a roll is in one gzip NDJSON object, in the order it was sent."""
    async with house.running() as pipeline:
        for number in range(5):
            await pipeline.send([{"n": number}, {"n": number, "again": True}])
        assert pipeline.pending == 10
        await pipeline.roll()
    [(key, records)] = (await house.objects()).items()
    assert key.startswith("event_date=")
    assert "/hr=" in key
    assert key.endswith(".json.gz")
    assert [record["n"] for record in records] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert (pipeline.records, pipeline.pending, pipeline.objects) == (10, 0, 1)


async def test_nothing_sent_is_no_object(house):
    """A roll without records writes nothing; neither does an empty send."""
    async with house.running() as pipeline:
        await pipeline.send([])
        await pipeline.roll()
    assert await house.objects() == {}


async def test_window_ends_by_age(house):
    """The window's end writes the object by itself."""
    async with house.running(PipelineConfig(bucket="events", max_seconds=0.02)) as pipeline:
        await pipeline.send([{"a": 1}])
        await house.until_objects(1)
        await pipeline.send([{"a": 2}])
        found = await house.until_objects(2)
    assert sorted(record["a"] for records in found.values() for record in records) == [1, 2]


@pytest.mark.parametrize("limit", [{"max_rows": 3}, {"max_bytes": 20}])
async def test_window_ends_by_rows_or_bytes(house, limit):
    """A full window is written at once, whatever its age."""
    config = PipelineConfig(bucket="events", max_seconds=3600, **limit)
    async with house.running(config) as pipeline:
        await pipeline.send([{"a": 1}, {"a": 2}, {"a": 3}])
        await pipeline.send([{"a": 4}])
        found = await house.until_objects(1)
    assert [len(records) for records in found.values()] == [3]


async def test_prefix_and_no_compression(house):
    """The prefix stands before the date; without compression the object is plain NDJSON."""
    config = PipelineConfig(bucket="events", prefix="/raw/", compression="none")
    async with house.running(config) as pipeline:
        await pipeline.send([{"a": "ü"}])
        await pipeline.roll()
    [(key, records)] = (await house.objects()).items()
    assert key.startswith("raw/event_date=")
    assert key.endswith(".json")
    assert records == [{"a": "ü"}]


@pytest.mark.parametrize("records", [None, {"a": 1}, "text", [1], [{"a": 1}, "x"], [[{}]]])
async def test_only_a_list_of_objects_is_taken(house, records):
    """Anything else is a TypeError, and none of it is kept."""
    async with house.running() as pipeline:
        with pytest.raises(PlatformError) as caught:
            await pipeline.send(records)
        assert caught.value.name == "TypeError"
        assert pipeline.pending == 0


async def test_too_much_at_once(house):
    """A send over the size limit is refused whole."""
    async with house.running() as pipeline:
        with pytest.raises(PlatformError, match="over the limit"):
            await pipeline.send([{"a": "x" * SEND_BYTES_MAX}])
        assert pipeline.pending == 0


async def test_sends_at_the_same_time(house):
    """Concurrent sends are all kept, each once."""
    async with house.running() as pipeline:
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(pipeline.send, [{"n": number}])
        await pipeline.roll()
    [records] = (await house.objects()).values()
    assert sorted(record["n"] for record in records) == list(range(200))


async def test_records_survive_the_process(house):
    """What send returned for is in the log: another Pipeline over it goes on with the window."""
    pipeline = house.pipeline()
    await pipeline.send([{"n": 1}])
    pipeline.close()
    async with house.running() as successor:
        assert successor.pending == 1
        await successor.send([{"n": 2}])
        await successor.roll()
    [records] = (await house.objects()).values()
    assert records == [{"n": 1}, {"n": 2}]


async def test_a_window_left_behind_still_ends_by_age(house):
    """A recovered window ends on its own, without another send."""
    pipeline = house.pipeline()
    await pipeline.send([{"n": 1}])
    pipeline.close()
    async with house.running(PipelineConfig(bucket="events", max_seconds=0.01)):
        await house.until_objects(1)


class Failing:
    """A bucket whose put fails a number of times: before the object is stored, or after."""

    def __init__(self, bucket: Bucket, times: int, *, after: bool) -> None:
        self._bucket = bucket
        self._times = times
        self._after = after
        self.failed = anyio.Event()

    async def head(self, key: str) -> Any:
        return await self._bucket.head(key)

    async def put(self, key: str, body: Any, **options: Any) -> Any:
        if self._times and not self._after:
            self._fail()
        stored = await self._bucket.put(key, body, **options)
        if self._times:
            self._fail()
        return stored

    def _fail(self) -> None:
        self._times -= 1
        self.failed.set()
        raise RunError("the store is away")


@pytest.mark.parametrize("after", [False, True])
async def test_a_failed_write_is_repeated_as_the_same_object(house, after):
    """When a put fails, or its answer is lost, the same key is tried again: one object at last."""
    async with house.running(bucket=Failing(house.bucket, 1, after=after)) as pipeline:
        await pipeline.send([{"n": 1}])
        with anyio.fail_after(10):
            await pipeline.roll()
    assert list((await house.objects()).values()) == [[{"n": 1}]]


async def test_killed_between_object_and_log(house):
    """A process that dies after the object was stored does not store it twice."""
    bucket = Failing(house.bucket, 1_000, after=True)
    async with house.running(bucket=bucket) as pipeline:
        await pipeline.send([{"n": 1}])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pipeline.roll)
            with anyio.fail_after(10):
                await bucket.failed.wait()
            tasks.cancel_scope.cancel()
    async with house.running() as successor:
        await successor.send([{"n": 2}])
        with anyio.fail_after(10):
            await successor.roll()
    assert sorted(map(str, (await house.objects()).values())) == ["[{'n': 1}]", "[{'n': 2}]"]


async def test_full_disk_is_told_to_the_sender(house, monkeypatch):
    """A log that cannot be written refuses the send; the next one works when there is room."""
    async with house.running() as pipeline:
        await pipeline.send([{"n": 1}])

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fdatasync", full)
            with pytest.raises(PlatformError, match="No space left"):
                await pipeline.send([{"n": 2}])
        await pipeline.send([{"n": 3}])
        await pipeline.roll()
    assert list((await house.objects()).values()) == [[{"n": 1}, {"n": 3}]]

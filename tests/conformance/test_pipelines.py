"""Pipelines over every embedded R2 driver: from send to object."""

import gzip
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from edgesim import drivers, durable
from edgesim.clock import Clock
from edgesim.config import load_project
from edgesim.config.pipelines import Field, PipelineConfig
from edgesim.errors import ConfigError, PlatformError, RunError
from edgesim.model import read_all
from edgesim.pipelines.buffer import COMMIT_BYTES_MAX
from edgesim.pipelines.pipeline import SEND_BYTES_MAX, Pipeline
from edgesim.pipelines.schema import fault
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.r2.notifications import Notifications
from tests.full_disk import damage
from tests.loops import on_both_loops  # noqa: F401 (every test here runs on both loops)

pytestmark = pytest.mark.anyio

NEVER = PipelineConfig(bucket="events", max_seconds=3600)


class SetClock(Clock):
    """The real clock plus ``set_by`` seconds."""

    set_by = 0.0

    def now(self) -> float:
        return super().now() + self.set_by


class House:
    """A bucket that outlives Pipelines, and Pipelines over it."""

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        self.bucket = bucket
        self.folder = folder
        self.clock = SetClock()

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
        """Return key -> records of every object."""
        found = {}
        for each in (await self.bucket.list()).objects:
            stored = await self.bucket.get(each.key)
            assert isinstance(stored, R2ObjectBody)
            data = await read_all(stored.body)
            text = gzip.decompress(data) if each.key.endswith(".gz") else data
            found[each.key] = [json.loads(line) for line in text.splitlines()]
        return found

    async def until_objects(self, count: int) -> dict[str, list[Any]]:
        with anyio.fail_after(60):
            while len(found := await self.objects()) < count:
                await anyio.lowlevel.checkpoint()
        return found


@pytest.fixture(params=["memory:", "file:"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    url = f"file:{tmp_path}/r2" if request.param == "file:" else request.param
    clock = Clock()
    open_r2 = drivers.opener("r2", url)
    async with open_r2(url, clock, tmp_path / "local") as driver:
        bucket = Bucket("events", driver, clock, Notifications({}, clock, "account"))
        yield House(bucket, tmp_path / "log")


async def test_rolled_records_are_one_object_in_order(house):
    """Section 5: all records sent before a roll are in one gzip NDJSON object, in order."""
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
    """Section 5: a roll without records writes nothing; neither does an empty send."""
    async with house.running() as pipeline:
        await pipeline.send([])
        await pipeline.roll()
    assert await house.objects() == {}


async def test_window_ends_by_age(house):
    """Section 5: at the end of its window the object is written without a roll."""
    async with house.running(PipelineConfig(bucket="events", max_seconds=0.02)) as pipeline:
        await pipeline.send([{"a": 1}])
        await house.until_objects(1)
        await pipeline.send([{"a": 2}])
        found = await house.until_objects(2)
    assert sorted(record["a"] for records in found.values() for record in records) == [1, 2]


@pytest.mark.parametrize("limit", [{"max_rows": 3}, {"max_bytes": 20}])
async def test_window_ends_by_rows_or_bytes(house, limit):
    """Section 5: a full window is written at once, at any age."""
    config = PipelineConfig(bucket="events", max_seconds=3600, **limit)
    async with house.running(config) as pipeline:
        await pipeline.send([{"a": 1}, {"a": 2}, {"a": 3}])
        await pipeline.send([{"a": 4}])
        found = await house.until_objects(1)
    assert [len(records) for records in found.values()] == [3]


async def test_prefix_and_no_compression(house):
    """Section 5: the prefix precedes the date; uncompressed objects are plain NDJSON."""
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
    """Section 5: any other value is a TypeError, and none of it is stored."""
    async with house.running() as pipeline:
        with pytest.raises(PlatformError) as caught:
            await pipeline.send(records)
        assert caught.value.name == "TypeError"
        assert pipeline.pending == 0


async def test_too_much_at_once(house):
    """Section 5: a send over the size limit is refused whole."""
    async with house.running() as pipeline:
        with pytest.raises(PlatformError, match="over the limit"):
            await pipeline.send([{"a": "x" * SEND_BYTES_MAX}])
        assert pipeline.pending == 0


async def test_sends_at_the_same_time(house):
    """Section 5: concurrent sends are all stored, each once."""
    async with house.running() as pipeline:
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(pipeline.send, [{"n": number}])
        await pipeline.roll()
    [records] = (await house.objects()).values()
    assert sorted(record["n"] for record in records) == list(range(200))


async def test_records_survive_the_process(house):
    """Section 5: acknowledged records are in the log; another Pipeline continues it."""
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
    """Section 5: a recovered window ends by age, without another send."""
    pipeline = house.pipeline()
    await pipeline.send([{"n": 1}])
    pipeline.close()
    async with house.running(PipelineConfig(bucket="events", max_seconds=0.01)):
        await house.until_objects(1)


class Failing:
    """A bucket whose put fails ``times`` times, before or after the object is stored."""

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
    """Section 5: if a put fails or its reply is lost, the same key is retried."""
    async with house.running(bucket=Failing(house.bucket, 1, after=after)) as pipeline:
        await pipeline.send([{"n": 1}])
        with anyio.fail_after(60):
            await pipeline.roll()
    assert list((await house.objects()).values()) == [[{"n": 1}]]


async def test_killed_between_object_and_log(house):
    """Section 5: a process killed after the object was stored does not store it twice."""
    bucket = Failing(house.bucket, 1_000, after=True)
    async with house.running(bucket=bucket) as pipeline:
        await pipeline.send([{"n": 1}])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pipeline.roll)
            with anyio.fail_after(60):
                await bucket.failed.wait()
            tasks.cancel_scope.cancel()
    async with house.running() as successor:
        await successor.send([{"n": 2}])
        with anyio.fail_after(60):
            await successor.roll()
    assert sorted(map(str, (await house.objects()).values())) == ["[{'n': 1}]", "[{'n': 2}]"]


async def test_a_window_whose_seal_is_lost_is_not_written_twice(house):
    """A log that looks open although its object exists creates no second object."""
    pipeline = house.pipeline()
    await pipeline.send([{"n": 1}])
    pipeline.close()
    [file] = house.folder.glob("*.wal")
    before = file.read_bytes()
    async with house.running() as successor:
        await successor.roll()
    file.write_bytes(before)  # as after a kill before the removal, with a damaged seal
    async with house.running() as successor:
        await successor.send([{"n": 2}])
        await successor.roll()
    assert sorted(map(str, (await house.objects()).values())) == ["[{'n': 1}]", "[{'n': 2}]"]
    assert list(house.folder.iterdir()) == []


async def test_a_damaged_log_is_recovered_once_the_disk_has_room(house, full_disk):
    """Without a restart; meanwhile the pipeline stores new records and counts the file."""
    pipeline = house.pipeline()
    for number in range(3):
        await pipeline.send([{"n": number}])
    pipeline.close()
    damage(house.folder, b'"n":1')
    async with house.running() as successor:
        await successor.send([{"n": 7}])
        await successor.roll()
        assert list((await house.objects()).values()) == [[{"n": 7}]]
        assert successor.pending == 1
        full_disk.has_room = True
        found = await house.until_objects(2)
    assert sorted(map(str, found.values())) == ["[{'n': 0}, {'n': 2}]", "[{'n': 7}]"]
    assert [file.suffix for file in house.folder.iterdir()] == [".damaged"]


async def test_a_late_recovery_keeps_the_open_window(house, full_disk):
    """The newest window is resumed although an older file is recovered after it."""
    older, newer = house.folder / "000000000001.wal", house.folder / "000000000002.wal"
    for number, file in enumerate((newer, older)):
        pipeline = house.pipeline()
        await pipeline.send([{"n": 1 - number}])
        await pipeline.send([{"n": 11 - number}])
        pipeline.close()
        (house.folder / "000000000001.wal").rename(house.folder.parent / file.name)
    for file in (older, newer):
        (house.folder.parent / file.name).rename(file)
    damage(house.folder, b'"n":10')
    async with house.running() as successor:
        await successor.send([{"n": 21}])
        full_disk.has_room = True
        await house.until_objects(1)
        await successor.roll()
    stored = sorted(map(str, (await house.objects()).values()))
    assert stored == ["[{'n': 0}]", "[{'n': 1}, {'n': 11}, {'n': 21}]"]


class Away(Failing):
    """A bucket whose head fails while ``is_away`` is set."""

    is_away = True

    async def head(self, key: str) -> Any:
        if self.is_away:
            raise RunError("the store is away")
        return await super().head(key)


async def test_a_window_that_may_be_written_takes_no_more_records(house):
    """While the bucket is unreachable, records go to a new window; none is lost or duplicated."""
    pipeline = house.pipeline()
    await pipeline.send([{"n": 1}])
    pipeline.close()
    [file] = house.folder.glob("*.wal")
    before = file.read_bytes()
    async with house.running() as successor:
        await successor.roll()
    file.write_bytes(before)
    bucket = Away(house.bucket, 0, after=False)
    async with house.running(bucket=bucket) as successor:
        await successor.send([{"n": 2}])
        assert successor.pending == 2
        bucket.is_away = False
        with anyio.fail_after(60):
            await successor.roll()
    assert sorted(map(str, (await house.objects()).values())) == ["[{'n': 1}]", "[{'n': 2}]"]


async def test_a_large_log_is_recovered_while_others_run(house):
    """Recovery yields to other tasks between its pieces, and a send meanwhile is stored."""
    pipeline = house.pipeline()
    for number in range(8):
        await pipeline.send([{"n": number, "x": "x" * 1_000_000}])
    pipeline.close()
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with house.running() as successor:
        assert successor.pending == 1  # not recovered yet: counted as a file
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_turns)
            await successor.send([{"n": 8}])
            tasks.cancel_scope.cancel()
        assert turns >= 4
        assert successor.pending == 9
        await successor.roll()
    [records] = (await house.objects()).values()
    assert [record["n"] for record in records] == list(range(9))


async def test_many_large_sends_are_not_one_write(house, monkeypatch):
    """Concurrent sends share writes of some megabytes, not one write of all their data."""
    sizes = []
    write_at = durable.write_at

    def counted(descriptor: int, path: Path, data: bytes, offset: int) -> None:
        sizes.append(len(data))
        write_at(descriptor, path, data, offset)

    monkeypatch.setattr("edgesim.durable.write_at", counted)
    async with house.running() as pipeline:
        async with anyio.create_task_group() as tasks:
            for number in range(12):
                tasks.start_soon(pipeline.send, [{"n": number, "x": "x" * 1_000_000}])
        await pipeline.roll()
    assert max(sizes) < COMMIT_BYTES_MAX + 1_100_000
    [records] = (await house.objects()).values()
    assert [record["n"] for record in records] == list(range(12))


@pytest.mark.parametrize("gone", ["log", "log's parent"])
async def test_a_log_that_is_deleted_refuses_and_saves_what_it_had(house, gone):
    """Sends fail once the log's folder is gone; acknowledged records become an object."""
    async with house.running() as pipeline:
        await pipeline.send([{"n": 1}])
        if gone == "log":
            shutil.rmtree(house.folder)
        else:
            house.folder.rename(house.folder.parent / "moved")
            house.folder.mkdir()
        for number in (2, 3):
            with pytest.raises(PlatformError, match="deleted or replaced"):
                await pipeline.send([{"n": number}])
        with anyio.fail_after(60):
            await pipeline.roll()
        with pytest.raises(PlatformError, match="deleted or replaced"):
            await pipeline.send([{"n": 4}])
    assert list((await house.objects()).values()) == [[{"n": 1}]]


async def test_full_disk_is_told_to_the_sender(house, monkeypatch):
    """Section 5: a send fails if the log cannot be written; the next one succeeds with space."""
    async with house.running() as pipeline:
        await pipeline.send([{"n": 1}])

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("edgesim.system.sync_file", full)
            with pytest.raises(PlatformError, match="No space left"):
                await pipeline.send([{"n": 2}])
        await pipeline.send([{"n": 3}])
        await pipeline.roll()
    assert list((await house.objects()).values()) == [[{"n": 1}, {"n": 3}]]


async def test_a_single_record_may_be_as_large_as_the_limit(house):
    """Section 5: 5 MB of JSON in one send are accepted."""
    async with house.running() as pipeline:
        await pipeline.send([{"a": "x" * (SEND_BYTES_MAX - 100)}])
        await pipeline.roll()
    [[record]] = (await house.objects()).values()
    assert len(record["a"]) == SEND_BYTES_MAX - 100


async def test_values_come_out_as_they_went_in(house):
    """Section 5: JSON of any shape, text of any script, null and numbers are unchanged."""
    record: dict[str, Any] = {
        "text": 'ü\n\u2028"\\',
        "none": None,
        "numbers": [0, -1, 1.5, 2**53 - 1],
        "deep": {"a": [{"b": [[]]}], "": {}},
        "flags": [True, False],
    }
    async with house.running() as pipeline:
        await pipeline.send([record])
        await pipeline.roll()
    assert list((await house.objects()).values()) == [[record]]


async def test_names_of_the_older_layout(house):
    """Section 5: event_date=YYYY-MM-DD/hr=HH/<ULID>.json.gz in UTC, from the window's start."""
    async with house.running() as pipeline:
        await pipeline.send([{"a": 1}])
        await pipeline.roll()
    [key] = await house.objects()
    assert re.fullmatch(r"event_date=\d{4}-\d\d-\d\d/hr=\d\d/[0-9A-HJKMNP-TV-Z]{26}\.json\.gz", key)
    assert key.startswith(house.clock.datetime().strftime("event_date=%Y-%m-%d"))


async def test_names_of_the_current_layout(house):
    """Section 5: <path>/year=YYYY/month=MM/day=DD/<UUID>."""
    config = PipelineConfig(bucket="events", prefix="sink", layout="current")
    async with house.running(config) as pipeline:
        await pipeline.send([{"a": 1}])
        await pipeline.roll()
    [key] = await house.objects()
    assert re.fullmatch(r"sink/year=\d{4}/month=\d\d/day=\d\d/[0-9a-f-]{36}\.json\.gz", key)


async def test_names_sort_by_their_time(house):
    """Section 5: a ULID sorts by creation time, so objects of an hour are listed in order."""
    async with house.running() as pipeline:
        for number in range(3):
            await pipeline.send([{"n": number}])
            await pipeline.roll()
            house.clock.set_by += 0.002
    found = await house.objects()
    if len({key.rpartition("/")[0] for key in found}) == 1:
        assert [records[0]["n"] for _, records in sorted(found.items())] == [0, 1, 2]


async def test_what_an_object_says_of_itself(house):
    """Section 5: gzip objects are application/gzip, plain ones NDJSON."""
    kinds: dict[Any, str] = {"gzip": "application/gzip", "none": "application/x-ndjson"}
    for compression, kind in kinds.items():
        config = PipelineConfig(bucket="events", prefix=compression, compression=compression)
        async with house.running(config) as pipeline:
            await pipeline.send([{"a": 1}])
            await pipeline.roll()
        [found] = (
            await house.bucket.list(prefix=f"{compression}/", include=["httpMetadata"])
        ).objects
        assert found.http_metadata.content_type == kind


async def test_a_roll_while_records_come_in(house):
    """Section 5: records sent during a roll are in that object or the next, each once."""
    async with house.running() as pipeline:
        async with anyio.create_task_group() as tasks:
            for number in range(60):
                tasks.start_soon(pipeline.send, [{"n": number}])
                if number % 20 == 10:
                    tasks.start_soon(pipeline.roll)
        await pipeline.roll()
    found = await house.objects()
    assert sorted(each["n"] for records in found.values() for each in records) == list(range(60))


async def test_a_clock_set_back_does_not_keep_a_window(house):
    """Section 5: an hour back in the middle of a window: it still ends after its own length."""
    async with house.running(PipelineConfig(bucket="events", max_seconds=0.05)) as pipeline:
        await pipeline.send([{"n": 1}])
        house.clock.set_by = -3600
        await house.until_objects(1)
        await pipeline.send([{"n": 2}])
        found = await house.until_objects(2)
    assert sorted(each["n"] for records in found.values() for each in records) == [1, 2]


async def test_a_window_of_another_time_still_ends(house):
    """Section 5: a window recovered while the clock shows an earlier year still ends."""
    pipeline = house.pipeline()
    await pipeline.send([{"n": 1}])
    pipeline.close()
    house.clock.set_by = -365 * 86_400
    async with house.running(PipelineConfig(bucket="events", max_seconds=0.05)):
        await house.until_objects(1)


async def test_a_torn_end_is_cut_off(house):
    """Section 5: a torn record at the end is dropped, and does not hide later records."""
    pipeline = house.pipeline()
    await pipeline.send([{"n": 1}])
    pipeline.close()
    [file] = house.folder.glob("*.wal")
    with file.open("ab") as log:
        log.write(file.read_bytes()[-20:-5])
    async with house.running() as successor:
        assert successor.pending == 1
        await successor.send([{"n": 2}])
        await successor.roll()
    assert list((await house.objects()).values()) == [[{"n": 1}, {"n": 2}]]


async def test_a_sender_that_is_gone_harms_nobody(house):
    """Section 5: a cancelled send does not affect concurrent ones."""
    async with house.running() as pipeline:
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await pipeline.send([{"n": 0}])
            for number in range(1, 4):
                tasks.start_soon(pipeline.send, [{"n": number}])
        await pipeline.roll()
    [records] = (await house.objects()).values()
    numbers = [record["n"] for record in records]
    assert sorted(numbers) in ([1, 2, 3], [0, 1, 2, 3])


# --- structured streams ---

STRUCTURED = PipelineConfig(
    bucket="events",
    max_seconds=3600,
    schema=[
        Field("string", "user", required=True),
        Field("int32", "count"),
        Field("timestamp", "at"),
        Field("list", "tags", items=Field("string")),
        Field("struct", "place", fields=[Field("float64", "lat", required=True)]),
    ],
)


async def test_records_that_keep_the_schema(house):
    """Section 5: required fields present, others present, null or absent: the record is kept."""
    records = [
        {"user": "a"},
        {"user": "b", "count": None, "tags": []},
        {"user": "c", "count": 3, "at": "2026-01-01T00:00:00Z", "tags": ["x"]},
        {"user": "d", "place": {"lat": 1}, "at": 1_767_225_600_000},
    ]
    async with house.running(STRUCTURED) as pipeline:
        await pipeline.send(records)
        await pipeline.roll()
    assert list((await house.objects()).values()) == [records]
    assert pipeline.dropped == {}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "missing_field"),
        ({"user": None}, "null_value"),
        ({"user": 7}, "type_mismatch"),
        ({"user": "a", "count": "3"}, "type_mismatch"),
        ({"user": "a", "count": True}, "type_mismatch"),
        ({"user": "a", "count": 1.5}, "type_mismatch"),
        ({"user": "a", "count": 2**31}, "parse_failure"),
        ({"user": "a", "at": "yesterday"}, "parse_failure"),
        ({"user": "a", "at": "2026-13-01T00:00:00Z"}, "parse_failure"),
        ({"user": "a", "tags": "x"}, "type_mismatch"),
        ({"user": "a", "tags": ["x", 1]}, "type_mismatch"),
        ({"user": "a", "place": {}}, "missing_field"),
        ({"user": "a", "place": {"lat": None}}, "null_value"),
        ({"user": "a", "place": [1]}, "type_mismatch"),
    ],
)
async def test_a_record_that_breaks_the_schema(house, record, reason):
    """Section 5: send accepts it; the record is dropped, and counted with the reason."""
    async with house.running(STRUCTURED) as pipeline:
        await pipeline.send([{"user": "good"}, record])
        await pipeline.roll()
    assert list((await house.objects()).values()) == [[{"user": "good"}]]
    assert pipeline.dropped == {reason: 1}
    assert pipeline.records == 1


async def test_fields_outside_the_schema_are_removed(house):
    """A structured stream stores the schema's fields only, at every depth, in its order."""
    point = [Field("int32", "x"), Field("json", "note")]
    schema = [
        Field("string", "user", required=True),
        Field("struct", "at", fields=point),
        Field("list", "path", items=Field("struct", fields=point)),
        Field("list", "grid", items=Field("list", items=Field("struct", fields=point))),
    ]
    config = PipelineConfig("structured", compression="none", schema=schema)
    extra = {"x": 1, "y": 2, "note": {"kept": [1]}}
    inner = {"x": 1, "note": {"kept": [1]}}
    async with house.running(config) as pipeline:
        await pipeline.send(
            [
                {"path": [extra, None], "odd": 1, "at": extra, "user": "a", "grid": [[extra], []]},
                {"User": "b", "user": "b", "at": None},
                {"odd": 1},
            ]
        )
        await pipeline.roll()
    [rows] = (await house.objects()).values()
    first = {"user": "a", "at": inner, "path": [inner, None], "grid": [[inner], []]}
    assert rows == [first, {"user": "b", "at": None}]
    assert [list(row) for row in rows] == [["user", "at", "path", "grid"], ["user", "at"]]
    assert pipeline.dropped == {"missing_field": 1}


async def test_nothing_kept_is_no_object(house):
    """Section 5: a send whose records the schema drops opens no window."""
    async with house.running(STRUCTURED) as pipeline:
        await pipeline.send([{}, {"user": None}])
        assert pipeline.pending == 0
        await pipeline.roll()
    assert await house.objects() == {}
    assert pipeline.dropped == {"missing_field": 1, "null_value": 1}


async def test_what_is_no_record_is_still_refused(house):
    """Section 5: a schema does not change the argument of send: an array of objects."""
    async with house.running(STRUCTURED) as pipeline:
        with pytest.raises(PlatformError):
            await pipeline.send([{"user": "a"}, "text"])
        assert pipeline.pending == 0


@pytest.mark.parametrize(
    ("kind", "right", "mismatched", "unparsable"),
    [
        ("string", ["", "x"], [1, True, [], {}], []),
        ("bool", [True, False], [0, "true"], []),
        ("int32", [0, -(2**31), 2**31 - 1, 3.0], ["1", 1.5], [2**31, -(2**31) - 1]),
        ("int64", [2**63 - 1, -(2**63)], ["1", 0.5], [2**63]),
        ("uint32", [0, 2**32 - 1], ["1"], [-1, 2**32]),
        ("uint64", [0, 2**64 - 1], ["1"], [-1]),
        ("float32", [0, 1.5, -3e38], ["1", True], [1e39]),
        ("float64", [0, 1e300], ["1", False], []),
        ("decimal128", [1, 1.5, "12.50", "9" * 38], [True, []], ["x", "9" * 39, "NaN"]),
        ("timestamp", ["2026-01-01T00:00:00.5+02:00", 0, 1.0], [1.5, True], ["2026-01-01", ""]),
        ("json", [0, "x", [], {"a": None}], [], []),
        ("binary", ["", "AAEC"], [1, []], ["***", "A"]),
        ("bytes", ["AAEC"], [1], ["A"]),
    ],
)
def test_field_types(kind, right, mismatched, unparsable):
    """Section 5: each documented type, its valid values, and the reason for dropping others."""
    field = [Field(kind, "f")]
    assert [value for value in right if fault({"f": value}, field)] == []
    for values, reason in ((mismatched, "type_mismatch"), (unparsable, "parse_failure")):
        assert {fault({"f": value}, field) for value in values} <= {reason}


def test_a_schema_of_the_file(tmp_path):
    """Section 5: [pipelines.X] schema = [...], checked at start; an error names the key."""
    worker = {"name": "main", "main": "entry.py"}
    (tmp_path / "main").mkdir()
    (tmp_path / "main" / "entry.py").write_text("")
    (tmp_path / "main" / "wrangler.json").write_text(json.dumps(worker))
    account = 'workers = ["main"]\n[pipelines.{name}]\nbucket = "structured"\nschema = [{schema}]\n'

    def load(schema: str, name: str = "events") -> Any:
        (tmp_path / "edgesim.toml").write_text(account.format(name=name, schema=schema))
        return load_project(tmp_path).account.pipelines[name].schema

    [field] = load('{name = "tags", type = "list", items = {type = "string"}}')
    assert field.items == Field("string")
    for schema, name, said in (
        ('{name = "a", type = "int"}', "events", "pipelines"),
        ('{type = "string"}', "events", r"schema\[0\]: needs a `name`"),
        ('{name = "a", type = "list"}', "events", r"schema\[0\]\.items"),
        (
            '{name = "a", type = "string", fields = [{name = "b", type = "json"}]}',
            "events",
            "fields",
        ),
        ('{name = "a", type = "json"}, {name = "a", type = "json"}', "events", "twice"),
        ('{name = "a", typ = "json"}', "events", "did you mean 'type'"),
        ("", "my-events", "letters, digits and underscores"),
    ):
        with pytest.raises(ConfigError, match=said):
            load(schema, name)

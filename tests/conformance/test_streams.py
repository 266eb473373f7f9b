"""Streams over every embedded R2 driver: from send to the files of several sinks."""

import gzip
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from edgesim import drivers
from edgesim.clock import Clock
from edgesim.config.dataflow import RecordStreamConfig, StreamSpec
from edgesim.config.pipelines import Field
from edgesim.config.sinks import SinkConfig
from edgesim.errors import PlatformError, RunError
from edgesim.model import read_all
from edgesim.pipelines.sinks.json_files import JsonFiles
from edgesim.pipelines.streams.checked import without_checksum
from edgesim.pipelines.streams.drops import SAMPLES_MAX
from edgesim.pipelines.streams.growth import RowsTooLargeError
from edgesim.pipelines.streams.stream import BufferFullError, RecordStream
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.r2.notifications import Notifications
from edgesim.taps import Taps
from tests.full_disk import damage
from tests.loops import on_both_loops  # noqa: F401 (every test here runs on both loops)

pytestmark = pytest.mark.anyio

SCHEMA = [Field("string", "id", required=True), Field("int64", "n")]
NEVER = SinkConfig("lake", format="json", compression="uncompressed", roll_interval=3600)


class SetClock(Clock):
    """The real clock plus ``set_by`` seconds."""

    set_by = 0.0

    def now(self) -> float:
        return super().now() + self.set_by


class StreamHouse:
    """A bucket that outlives streams, and streams over it."""

    def __init__(self, bucket: Bucket, folder: Path) -> None:
        self.bucket = bucket
        self.folder = folder
        self.clock = SetClock()
        self.fields: list[Field] = []
        self.config = RecordStreamConfig()

    def stream(self, sinks: dict[str, SinkConfig], bucket: Any = None) -> RecordStream:
        spec = StreamSpec("clicks", self.config, self.fields)
        stream = RecordStream(spec, self.folder, self.clock)
        for name, config in sinks.items():
            stream.add_reader(f"flow/{name}", JsonFiles(name, config, bucket or self.bucket))
        return stream

    @asynccontextmanager
    async def running(
        self, *, bucket: Any = None, **sinks: SinkConfig
    ) -> AsyncIterator[RecordStream]:
        stream = self.stream(sinks or {"lake": NEVER}, bucket)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.run)
            yield stream
            tasks.cancel_scope.cancel()
        stream.close()

    async def files(self) -> dict[str, list[Any]]:
        """Return key -> rows of every file."""
        found = {}
        for each in (await self.bucket.list()).objects:
            stored = await self.bucket.get(each.key)
            assert isinstance(stored, R2ObjectBody)
            data = await read_all(stored.body)
            text = gzip.decompress(data) if each.key.endswith(".gz") else data
            found[each.key] = [json.loads(line) for line in text.splitlines()]
        return found

    async def until_files(self, count: int) -> dict[str, list[Any]]:
        with anyio.fail_after(60):
            while len(found := await self.files()) < count:
                await anyio.lowlevel.checkpoint()
        return found

    async def rolled(self, stream: RecordStream) -> dict[str, list[Any]]:
        with anyio.fail_after(60):
            await stream.roll()
        return await self.files()


@pytest.fixture(params=["memory:", "file:"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StreamHouse]:
    url = f"file:{tmp_path}/r2" if request.param == "file:" else request.param
    clock = Clock()
    open_r2 = drivers.opener("r2", url)
    async with open_r2(url, clock, tmp_path / "local") as driver:
        bucket = Bucket("lake", driver, clock, Notifications({}, clock, "account"))
        yield StreamHouse(bucket, tmp_path / "log")


def sink(**changes: Any) -> SinkConfig:
    return msgspec.structs.replace(NEVER, **changes)


async def test_rolled_rows_are_one_file_in_order(house):
    """All records sent before a roll are in one file, in order, under the platform's key."""
    async with house.running() as stream:
        for number in range(5):
            assert await stream.send([{"n": number}, {"n": number, "again": True}]) == 2
        assert stream.pending == 10
        [(key, rows)] = (await house.rolled(stream)).items()
    day = house.clock.datetime().strftime("year=%Y/month=%m/day=%d")
    assert re.fullmatch(rf"{day}/[\da-f]{{8}}-[\da-f]{{4}}-4[\da-f-]{{18}}\w*\.json", key)
    assert [row["value"]["n"] for row in rows] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert (stream.records, stream.pending, stream.objects) == (10, 0, 1)


async def test_path_partitioning_and_gzip(house):
    """A sink's path and its strftime pattern make the folder; gzip files say so in their name."""
    config = sink(path="/a/b/", partitioning="hour=%H", compression="gzip")
    async with house.running(lake=config) as stream:
        await stream.send([{"n": 1}])
        [key] = await house.rolled(stream)
    assert re.fullmatch(r"a/b/hour=\d\d/[\da-f-]{36}\.json\.gz", key)


async def test_one_stream_feeds_several_sinks(house):
    """Each reader stores every record once, in windows of its own length."""
    async with house.running(fast=sink(path="fast", roll_interval=0.01), slow=NEVER) as stream:
        await stream.send([{"n": 1}])
        await house.until_files(1)
        await stream.send([{"n": 2}])
        await house.until_files(2)
        files = await house.rolled(stream)
        assert stream.pending == 0
    by_sink = [(key.startswith("fast"), rows) for key, rows in files.items()]
    one, two = {"value": {"n": 1}}, {"value": {"n": 2}}
    assert sorted(map(str, by_sink)) == sorted(
        map(str, [(True, [one]), (True, [two]), (False, [one, two])])
    )
    assert list(house.folder.glob("*.wal")) == []


async def test_a_window_ends_by_size(house):
    """A file ends as soon as its records have reached `roll_size`."""
    async with house.running(lake=sink(roll_size=0.001)) as stream:
        await stream.send([{"text": "x" * 900}])
        await stream.send([{"text": "y" * 900}])
        with anyio.fail_after(60):
            while stream.pending:
                await anyio.lowlevel.checkpoint()
    assert len(await house.files()) == 1


async def test_every_send_can_end_a_window(house):
    """Sends that each reach `roll_size` are stored one by one, without a roll."""
    async with house.running(lake=sink(roll_size=0.001)) as stream:
        for number in range(3):
            await stream.send([{"n": number, "text": "x" * 1500}])
            await house.until_files(number + 1)
            with anyio.fail_after(60):
                while stream.pending:
                    await anyio.lowlevel.checkpoint()


async def test_records_that_do_not_fit_are_dropped_and_counted(house):
    """They are accepted; the counts have their reasons, and samples show some of them."""
    house.fields = SCHEMA
    async with house.running() as stream:
        sent = await stream.send(
            [{"id": "a", "x": 1}, {"n": 1}, {"id": None}, {"id": "b", "n": ""}]
        )
        assert sent == 4
        [rows] = (await house.rolled(stream)).values()
    assert rows == [{"id": "a", "n": None}]
    assert stream.drops.counts == {"missing_field": 1, "null_value": 1, "type_mismatch": 1}
    assert [(each.reason, each.column) for each in stream.drops.samples] == [
        ("missing_field", "id"),
        ("null_value", "id"),
        ("type_mismatch", "n"),
    ]
    assert json.loads(stream.drops.samples[2].record) == {"id": "b", "n": ""}
    assert stream.records == 4


async def test_a_file_of_dropped_records_does_not_exist(house):
    """If no record fits, nothing is written, and only the latest samples are kept."""
    house.fields = SCHEMA
    async with house.running() as stream:
        await stream.send([{"n": number} for number in range(SAMPLES_MAX + 5)])
        assert await house.rolled(stream) == {}
    assert json.loads(stream.drops.samples[0].record) == {"n": 5}
    assert len(stream.drops.samples) == SAMPLES_MAX


@pytest.mark.parametrize("records", [None, {}, "a", [1], [{"a": 1}, None], [[{}]], [{"a": b""}, 5]])
async def test_only_lists_of_objects_are_accepted(house, records):
    """Anything else is a TypeError, and none of it is stored."""
    async with house.running() as stream:
        with pytest.raises(PlatformError) as caught:
            await stream.send(records)
        assert caught.value.name == "TypeError"
        assert await house.rolled(stream) == {}
    assert stream.records == 0


async def test_five_megabytes_are_the_limit_of_a_send(house):
    """A larger send is refused, with the size and the limit; nothing of it is stored."""
    async with house.running() as stream:
        with pytest.raises(PlatformError, match="5000000"):
            await stream.send([{"a": "x" * 5_000_000}])
        assert await house.rolled(stream) == {}


async def test_empty_records_of_a_wide_schema_are_refused(house):
    """Rows are bounded too: megabytes of empty records would be gigabytes of nulls."""
    house.fields = [Field("string", f"column_with_a_long_name_{each}") for each in range(50)]
    body = b"[" + b"{}," * 200_000 + b"{}]"
    async with house.running() as stream:
        with pytest.raises(RowsTooLargeError):
            await stream.send_json(body)
        with pytest.raises(RowsTooLargeError):
            await stream.send([{}] * 100_000)
        assert await stream.send_json(b"[{},{}]") == 2
        (rows,) = (await house.rolled(stream)).values()
    assert rows == [dict.fromkeys(field.name for field in house.fields)] * 2
    assert stream.records == 2


async def test_a_full_buffer_refuses(house):
    """While the sinks lack too many bytes, a send fails; it works again once they are stored."""
    house.config = RecordStreamConfig(buffer_bytes_max=100)
    async with house.running() as stream:
        await stream.send([{"a": "x" * 200}])
        with pytest.raises(BufferFullError, match="limit is 100"):
            await stream.send([{"a": 1}])
        await house.rolled(stream)
        await stream.send([{"a": 2}])
        assert len(await house.rolled(stream)) == 2
    assert stream.records == 2


async def test_without_a_reader_records_are_only_counted(house):
    """A stream that no pipeline reads keeps nothing."""
    stream = house.stream({})
    assert await stream.send([{"n": 1}]) == 1
    assert (stream.records, stream.pending) == (1, 0)
    stream.close()
    assert list(house.folder.glob("*.wal")) == []


class FailingStore:
    """A bucket whose first puts fail, before or ``after`` the object is stored."""

    def __init__(self, bucket: Bucket, times: int, *, after: bool) -> None:
        self.bucket = bucket
        self.times = times
        self.after = after
        self.failed = anyio.Event()

    async def head(self, key: str) -> Any:
        return await self.bucket.head(key)

    async def put(self, key: str, body: Any, **options: Any) -> Any:
        if self.times and self.after:
            await self.bucket.put(key, body, **options)
        if self.times:
            self.times -= 1
            self.failed.set()
            raise RunError("the store is away")
        return await self.bucket.put(key, body, **options)


@pytest.mark.parametrize("after", [False, True])
async def test_a_failed_write_is_repeated_as_the_same_file(house, after):
    """If a put fails or its reply is lost, the same file is written again."""
    async with house.running(bucket=FailingStore(house.bucket, 1, after=after)) as stream:
        await stream.send([{"n": 1}])
        assert list((await house.rolled(stream)).values()) == [[{"value": {"n": 1}}]]


@pytest.mark.parametrize("after", [False, True])
async def test_killed_while_a_file_is_written(house, after):
    """A process killed around the put stores the window once, with the records it had."""
    bucket = FailingStore(house.bucket, 1_000, after=after)
    async with house.running(bucket=bucket) as stream:
        await stream.send([{"n": 1}])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.roll)
            with anyio.fail_after(60):
                await bucket.failed.wait()
            tasks.cancel_scope.cancel()
    async with house.running() as successor:
        await successor.send([{"n": 2}])
        files = await house.rolled(successor)
    assert sorted(map(str, files.values())) == ["[{'value': {'n': 1}}]", "[{'value': {'n': 2}}]"]


async def test_a_slow_sink_keeps_its_records_while_another_goes_on(house):
    """Segments stay until the last reader has stored them, also across a restart."""
    away = FailingStore(house.bucket, 1_000, after=False)
    stream = house.stream({"lake": NEVER})
    stream.add_reader("flow/away", JsonFiles("away", sink(path="away"), away))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.run)
        await stream.send([{"n": 1}])
        tasks.start_soon(stream.roll)
        await house.until_files(1)
        assert stream.pending == 1
        tasks.cancel_scope.cancel()
    stream.close()
    async with house.running(lake=NEVER, away=sink(path="away")) as successor:
        files = await house.rolled(successor)
    assert len(files) == 2
    assert [key.startswith("away") for key in sorted(files)] == [True, False]


async def test_records_survive_a_restart(house):
    """Records that were not stored are stored by the next run, together with new ones."""
    stream = house.stream({"lake": NEVER})
    await stream.send([{"n": 1}])
    stream.close()
    async with house.running() as successor:
        await successor.send([{"n": 2}])
        files = await house.rolled(successor)
    assert list(files.values()) == [[{"value": {"n": 1}}, {"value": {"n": 2}}]]


async def test_numbers_go_on_after_everything_is_stored(house):
    """A run that finds an empty log does not take new records for stored ones."""
    for number in range(3):
        async with house.running() as stream:
            await stream.send([{"n": number}])
            assert len(await house.rolled(stream)) == number + 1


async def test_a_new_reader_begins_with_new_records(house):
    """A pipeline that is added later does not store what was stored before it existed."""
    async with house.running() as stream:
        await stream.send([{"n": 1}])
        await house.rolled(stream)
    async with house.running(lake=NEVER, late=sink(path="late")) as stream:
        await stream.send([{"n": 2}])
        files = await house.rolled(stream)
    assert [rows for key, rows in files.items() if key.startswith("late")] == [
        [{"value": {"n": 2}}]
    ]


@pytest.mark.parametrize("name", ["positions.0.json", "positions.1.json", "schema.json"])
async def test_one_damaged_file_is_no_loss(house, name):
    """Beside the log everything is there twice or can be written again."""
    async with house.running() as stream:
        await stream.send([{"n": 1}])
        await house.rolled(stream)
        await stream.send([{"n": 2}])
    file = house.folder / name
    file.write_bytes(file.read_bytes()[:-3] + b"xxx")
    async with house.running() as stream:
        await stream.send([{"n": 3}])
        files = await house.rolled(stream)
    stored = [row["value"]["n"] for rows in files.values() for row in rows]
    assert sorted(stored) == [1, 2, 3]


def damage_newest_positions(folder: Path) -> None:
    def save(file: Path) -> int:
        text = without_checksum(file.read_bytes())
        assert text is not None
        return int(json.loads(text)["save"])

    max(folder.glob("positions*"), key=save).write_bytes(b"x")


async def test_a_stored_window_is_found_without_its_first_segment(house):
    """The newest positions are damaged, and another sink still needs the end of the window only."""
    away = FailingStore(house.bucket, 0, after=False)
    stream = house.stream({"lake": NEVER})
    each = sink(path="away", roll_size=0.000_001)
    stream.add_reader("flow/away", JsonFiles("away", each, away))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.run)
        await stream.send([{"n": 1}])
        await house.until_files(1)
        away.times = 1_000
        await stream.send([{"n": 2}])
        with anyio.fail_after(60):
            await away.failed.wait()
            tasks.start_soon(stream.roll)
            while len(list(house.folder.glob("*.wal"))) > 1 or len(await house.files()) < 2:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    stream.close()
    damage_newest_positions(house.folder)
    async with house.running(lake=NEVER, away=each) as successor:
        files = await house.rolled(successor)
    rows = {key: [row["value"]["n"] for row in found] for key, found in files.items()}
    assert sorted(rows.values()) == [[1], [1, 2], [2]]


async def test_both_copies_damaged_is_one_clear_error(house):
    """Without its positions a stream cannot know what is stored: it does not start."""
    async with house.running() as stream:
        await stream.send([{"n": 1}])
        await house.rolled(stream)
    for file in house.folder.glob("positions*"):
        file.write_bytes(b"x")
    with pytest.raises(RunError, match=r"positions\.0\.json: .* in both files"):
        house.stream({"lake": NEVER})


async def test_nothing_is_stored_before_a_damaged_log_is_recovered(house, full_disk):
    """A position tells that all segments before it are stored: a later one waits for them."""
    for number in range(3):
        stream = house.stream({"lake": NEVER})
        await stream.send([{"n": number}, {"n": number + 10}])
        stream.close()
    damage(house.folder, b'"n":0')
    async with house.running() as successor:
        await successor.send([{"n": 7}])
        await successor.roll()
        assert await house.files() == {}
    async with house.running() as successor:
        await successor.roll()
        assert await house.files() == {}
        full_disk.has_room = True
        while not (files := await house.rolled(successor)):
            await anyio.lowlevel.checkpoint()
    stored = [row["value"]["n"] for rows in files.values() for row in rows]
    assert sorted(stored) == [1, 2, 7, 11, 12]


async def test_a_window_whose_seal_is_lost_is_not_written_twice(house):
    """A segment that looks open although its window is stored takes no more records."""
    stream = house.stream({"lake": NEVER})
    await stream.send([{"n": 1}])
    stream.close()
    [file] = house.folder.glob("*.wal")
    before = file.read_bytes()
    async with house.running() as successor:
        await house.rolled(successor)
    file.write_bytes(before)  # as after a kill before the removal, with a damaged seal
    async with house.running() as successor:
        await successor.send([{"n": 2}])
        files = await house.rolled(successor)
    assert sorted(map(str, files.values())) == ["[{'value': {'n': 1}}]", "[{'value': {'n': 2}}]"]


async def test_a_clock_set_back_does_not_stop_the_windows(house):
    """A window ends at the latest one interval after it was looked at."""
    async with house.running(lake=sink(roll_interval=0.05)) as stream:
        await stream.send([{"n": 1}])
        house.clock.set_by = -3600
        await house.until_files(1)


async def test_records_of_another_schema_are_set_aside(house):
    """Buffered rows of an old schema are kept in a folder, and disturb no new file."""
    house.fields = SCHEMA
    stream = house.stream({"lake": NEVER})
    await stream.send([{"id": "a"}])
    stream.close()
    house.fields = [Field("bool", "id")]
    async with house.running() as successor:
        await successor.send([{"id": True}])
        assert list((await house.rolled(successor)).values()) == [[{"id": True}]]
    assert [file.name for file in sorted((house.folder / "schema-1").iterdir())] == [
        "000000000001.wal",
        "schema.json",
    ]
    house.fields = SCHEMA
    async with house.running() as successor:  # nothing is buffered: nothing to set aside
        await successor.send([{"id": "b"}])
        assert len(await house.rolled(successor)) == 2
    assert not (house.folder / "schema-2").exists()


@pytest.mark.parametrize("more", [False, True])
async def test_positions_of_an_earlier_time_lose_and_repeat_nothing(house, more):
    """A disk that lied brings back old positions: the files themselves say what is in them."""
    stream = house.stream({"lake": NEVER})
    await stream.send([{"n": 1}])
    stream.close()
    before = {file.name: file.read_bytes() for file in house.folder.iterdir()}
    async with house.running() as successor:
        await house.rolled(successor)
    for file in house.folder.iterdir():
        file.unlink()
    for name, content in before.items():
        (house.folder / name).write_bytes(content)
    async with house.running() as successor:
        if more:
            await successor.send([{"n": 2}])
        files = await house.rolled(successor)
    stored = [row["value"]["n"] for rows in files.values() for row in rows]
    assert sorted(stored) == ([1, 2] if more else [1])


async def test_a_tap_shows_json_as_it_was_sent(house):
    """Records that fit the schema are shown too, with the fields that their rows do not have."""
    taps = Taps(house.clock)
    spec = StreamSpec("clicks", house.config, SCHEMA)
    stream = RecordStream(spec, house.folder, house.clock, taps.at("streams.clicks"))
    stream.add_reader("flow/lake", JsonFiles("lake", NEVER, house.bucket))
    record = {"id": "a", "other": [1]}
    with taps.reading("streams.clicks") as reader:
        await stream.send_json(json.dumps([record]).encode())
        assert json.loads(reader.records.receive_nowait())["record"] == record
    await stream.send_json(json.dumps([record]).encode())
    stream.close()


async def test_records_that_fit_and_others_of_one_body(house):
    """The rows of a body are the same whether another record of it fits or not."""
    house.fields = [*SCHEMA, Field("float64", "x"), Field("timestamp", "at")]
    record = {"id": "a", "n": 3, "x": 1, "at": 1_700_000_000_000}
    async with house.running() as stream:
        for sent in ([record], [record, {"n": 1}]):
            assert await stream.send_json(json.dumps(sent).encode()) == len(sent)
        [rows] = (await house.rolled(stream)).values()
    assert rows[0] == rows[1]
    assert [type(value) for value in rows[1].values()] == [str, int, float, str]
    assert stream.drops.counts == {"missing_field": 1}

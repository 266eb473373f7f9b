"""Rows and statements that attack the SQL engine: each costs itself, and no other row.

Every row attack stands between two ordinary rows of its batch.
"""

import json
import os
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog

from edgesim import drivers
from edgesim.clock import Clock
from edgesim.config.dataflow import RecordStreamConfig, StreamSpec
from edgesim.config.sinks import SinkConfig
from edgesim.config.sql_limits import SqlLimits
from edgesim.errors import RunError
from edgesim.pipelines.segment import RowChunk
from edgesim.pipelines.sinks.sql_files import SqlFiles
from edgesim.pipelines.sinks.statement import SinkStatement
from edgesim.pipelines.sql import cuts
from edgesim.pipelines.sql.cuts import Cuts
from edgesim.pipelines.sql.engine import EngineEndedError, SqlEngine, SqlEngineError
from edgesim.pipelines.sql.transformation import Transformation
from edgesim.pipelines.sql.wire import FileFormat, Query, Rows, SqlFrame
from edgesim.pipelines.streams.stream import RecordStream
from edgesim.r2.bucket import Bucket
from edgesim.r2.notifications import Notifications
from edgesim.system import LINUX
from tests.conformance.sql_attacks import ENDLESS, FIELDS, ROWS, STATEMENTS

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

SHORT = SqlLimits(batch_cpu_seconds=0.5, memory_bytes=256 << 20)
LONG = SqlLimits(batch_cpu_seconds=600.0, memory_bytes=256 << 20)
JSON = FileFormat("json", "uncompressed", 1 << 20)


def query(sql: str) -> Query:
    return Query(sql, "s", FIELDS, "2026-01-01T00:00:00")


def encoded(*rows: dict[str, Any]) -> RowChunk:
    lines = [json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows]
    return RowChunk(b"".join(lines), len(lines))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for all tests: the engines' processes belong to it."""
    return "asyncio"


@pytest.fixture(scope="module")
async def impatient(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[SqlEngine]:
    """An engine with little CPU time for a batch; it renews a process that an attack has ended."""
    engine = SqlEngine(tmp_path_factory.mktemp("impatient") / "sql", SHORT)
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
async def patient(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[SqlEngine]:
    """An engine of which no test reaches the limit of CPU time."""
    engine = SqlEngine(tmp_path_factory.mktemp("patient") / "sql", LONG)
    yield engine
    await engine.close()


async def run(
    engine: SqlEngine, sql: str, *rows: RowChunk, cuts: Cuts | None = None
) -> tuple[list[Any], list[Any]]:
    """Returns the numbers of the rows of the result, and the dropped rows."""
    drops: list[Any] = []
    running = Transformation(engine, query(sql), JSON, "result", lambda: iter(rows), cuts)
    path, done = await running.run(lambda *drop: drops.append(drop))
    found = [json.loads(line)["n"] for line in path.read_bytes().splitlines()]
    assert len(found) == done.rows
    return found, drops


@pytest.mark.parametrize("name", ROWS)
async def test_a_row_costs_itself(patient, impatient, name):
    """The rows before and after it are in the file; it is not, and the reason is known."""
    expression, attack, reason = ROWS[name]
    sql = f"SELECT n, {expression} AS x FROM s"
    ordinary: dict[str, Any] = {"t": "$"} if "(j, t)" in sql else {"t": "1"}
    ordinary["j"] = {}
    if reason == "sql_error":
        ordinary |= {"f": 1, "at": "2026-01-01T00:00:00Z"}
    else:
        ordinary["f"] = 1
    if name == "a time zone":
        ordinary["t"] = "2026-01-01T00:00:00+01:00"
    if name == "base64":
        ordinary["t"] = "aGk="
    rows = encoded({"n": 1, **ordinary}, {"n": 2, **attack}, {"n": 3, **ordinary})
    engine = impatient if reason == "time_limit" else patient
    await engine.describe(query(sql))
    found, drops = await run(engine, sql, rows)
    assert found == [1, 3]
    if name == "a range" and not LINUX:
        reason = "memory_limit"  # DataFusion gets the memory that Linux refuses
    assert [(number, json.loads(line)["n"], why) for number, line, why, _ in drops] == [
        (1, 2, reason)
    ]
    assert drops[0][3]


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_statement_is_refused_by_the_engine(patient, impatient, name):
    """The engine refuses it in one line, and goes on."""
    engine = impatient if "ends" in name else patient
    with pytest.raises(SqlEngineError) as caught:
        await engine.describe(query(STATEMENTS[name]))
    assert "\n" not in str(caught.value)
    assert len(await engine.describe(query("SELECT n FROM s"))) == 1


async def test_json_of_a_row_forges_no_row(patient):
    """Text in the place of a JSON column is text, with its line ends escaped."""
    rows = encoded({"n": 1, "t": '1}\n{"n":666}'}, {"n": 2, "j": {"a": [1]}})
    for sql in (
        "SELECT n, coalesce(t, j) AS j FROM s",
        "SELECT n, CASE WHEN t IS NULL THEN j ELSE t END AS j FROM s",
        "SELECT n, j FROM (SELECT n, coalesce(t, j) AS j FROM s)",
        "SELECT n, unnest(make_array(t, j)) AS j FROM s WHERE n = 1",
    ):
        found, drops = await run(patient, sql, rows)
        assert set(found) <= {1, 2}
        assert drops == []


async def test_a_batch_of_failing_rows(patient):
    """Half of 2,000 rows fail: the others are there, in order."""
    rows = encoded(*({"n": number, "f": number % 2} for number in range(2_000)))
    found, drops = await run(patient, "SELECT n, 1 / arrow_cast(f, 'Int64') AS x FROM s", rows)
    assert found == list(range(1, 2_000, 2))
    assert [number for number, *_ in drops] == list(range(0, 2_000, 2))


async def test_a_statement_that_is_slow_everywhere_drops_nothing(impatient):
    """It runs in smaller batches."""
    rows = encoded(*({"n": number, "t": "abc" * 500} for number in range(500)))
    sql = "SELECT n, levenshtein(t, reverse(t)) AS x FROM s"
    await impatient.describe(query(sql))
    process = impatient._process
    assert await run(impatient, sql, rows) == (list(range(500)), [])
    assert impatient._process is not process  # the batch was over the limit


async def test_cuts_are_kept(impatient, tmp_path):
    """After a crash the same rows are left out at once; another query is judged anew."""
    file = tmp_path / "cuts" / "window.json"
    sql, other = f"SELECT n, {ENDLESS} AS x FROM s", "SELECT n, t FROM s"
    rows = encoded({"n": 1}, {"n": 2, "t": "ab" * 500}, {"n": 3})
    first = await run(impatient, sql, rows, cuts=Cuts(query(sql), file))
    assert first[0] == [1, 3]
    process = impatient._process
    assert await run(impatient, sql, rows, cuts=Cuts(query(sql), file)) == first
    assert impatient._process is process
    assert await run(impatient, other, rows, cuts=Cuts(query(other), file)) == ([1, 2, 3], [])
    file.write_bytes(file.read_bytes()[:-5])
    assert await run(impatient, sql, rows, cuts=Cuts(query(sql), file)) == first


async def test_rows_of_many_batches(patient, monkeypatch):
    """Batches of any size follow each other: each row is in the result or dropped, in order."""
    monkeypatch.setattr(cuts, "BATCH_BYTES", 1)
    sizes = [1, 30, 2, 2, 90, 1, 1, 40]
    numbers = iter(range(sum(sizes)))
    rows = [encoded(*({"n": next(numbers), "f": size % 2} for _ in range(size))) for size in sizes]
    failing = [number for number in range(sum(sizes)) if number in {0, 125, 126}]
    sql = "SELECT n, 1 / (1 - arrow_cast(f, 'Int64')) AS x FROM s"
    found, drops = await run(patient, sql, *rows)
    assert [number for number, *_ in drops] == failing
    assert [json.loads(line)["n"] for _, line, _, _ in drops] == failing
    assert found == [number for number in range(sum(sizes)) if number not in failing]


async def test_a_result_that_the_disk_does_not_take(tmp_path, monkeypatch):
    """The error is the platform's, with rows on the way too; the next window is transformed."""
    monkeypatch.setattr(cuts, "BATCH_BYTES", 1_000)
    engine = SqlEngine(tmp_path / "sql", LONG)
    rows = [encoded({"n": number, "t": "a" * 2_000}) for number in range(5)]
    try:
        await engine.describe(query("SELECT n FROM s"))
        assert engine._process is not None
        resource.prlimit(engine._process.pid, resource.RLIMIT_FSIZE, (5_000, 5_000))
        with pytest.raises(RunError, match="File too large"):
            await run(engine, "SELECT n, t FROM s", *rows)
        assert await run(engine, "SELECT n, t FROM s", *rows) == (list(range(5)), [])
    finally:
        await engine.close()


class KilledEngine(SqlEngine):
    """An engine whose process is killed with some rows, as by a machine without memory."""

    async def _send(self, frame: SqlFrame) -> None:
        await super()._send(frame)
        if isinstance(frame, Rows) and b"ababab" in Path(frame.path).read_bytes():
            assert self._process is not None
            os.kill(self._process.pid, signal.SIGKILL)


async def test_a_killed_engine_is_no_fault_of_the_rows_at_first(tmp_path):
    """Twice the error is the platform's; then the rows are cut, and one of them set aside."""
    rows = encoded(*({"n": number, "t": "ab" * 500 if number == 5 else ""} for number in range(9)))
    engine = KilledEngine(tmp_path / "sql", LONG)
    drops: list[Any] = []
    running = Transformation(
        engine, query(f"SELECT n, {ENDLESS} AS x FROM s"), JSON, "result", lambda: iter([rows])
    )
    try:
        for _ in range(2):
            with pytest.raises(EngineEndedError, match="status -9"):
                await running.run(lambda *drop: drops.append(drop))
        assert drops == []
        path, _ = await running.run(lambda *drop: drops.append(drop))
    finally:
        await engine.close()
    found = [json.loads(line)["n"] for line in path.read_bytes().splitlines()]
    assert found == [0, 1, 2, 3, 4, 6, 7, 8]
    assert [(number, reason) for number, _, reason, _ in drops] == [(5, "engine_crash")]


class LosingStore:
    """A bucket whose first put fails."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.failures = 1

    async def head(self, key: str) -> Any:
        return await self.bucket.head(key)

    async def put(self, key: str, body: Any, **options: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise RunError("the store is away")
        return await self.bucket.put(key, body, **options)


async def test_a_stream_counts_and_shows_what_its_statement_drops(impatient, tmp_path):
    """The window goes through; each reason is counted once, also if a put is repeated."""
    clock = Clock()
    sink = SinkConfig("lake", format="json", compression="uncompressed", roll_interval=3600)
    sql = f"SELECT 10 / n AS x, {ENDLESS} AS y FROM s"
    open_r2 = drivers.opener("r2", "memory:")
    async with open_r2("memory:", clock, tmp_path / "local") as driver:
        bucket = Bucket("lake", driver, clock, Notifications({}, clock, "account"))
        store, cuts = LosingStore(bucket), tmp_path / "cuts"
        stream = RecordStream(
            StreamSpec("s", RecordStreamConfig(), FIELDS), tmp_path / "log", clock
        )
        statement = SinkStatement("lake", query(sql), impatient, cuts, clock)
        stream.add_reader("r", SqlFiles("lake", sink, store, statement))
        with structlog.testing.capture_logs() as logs:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.run)
                await stream.send([{"n": 0}, {"n": 5}, {"n": 7, "t": "ab" * 500}, {"x": 1}])
                await stream.roll()
                tasks.cancel_scope.cancel()
        stream.close()
        [file] = (await bucket.list()).objects
        assert file.size == len(b'{"x":2,"y":null}\n')
    assert stream.drops.counts == {"missing_field": 1, "sql_error": 1, "time_limit": 1}
    assert [(each.reason, each.statement == sql) for each in stream.drops.samples] == [
        ("missing_field", False),
        ("sql_error", True),
        ("time_limit", True),
    ]
    assert json.loads(stream.drops.samples[1].record)["n"] == 0
    assert "Divide by zero" in stream.drops.samples[1].problem
    [line] = [each for each in logs if each["event"] == "statement dropped records"]
    assert (line["log_level"], line["sql_error"], line["time_limit"]) == ("error", 1, 1)
    assert stream.pending == 0
    assert list(cuts.iterdir()) == []

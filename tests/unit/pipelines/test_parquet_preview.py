"""The table that an operator sees of a Parquet object."""

import datetime as dt
import decimal
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgesim import operations
from edgesim.errors import UsageError
from edgesim.operations import buckets
from edgesim.pipelines.sql import engine
from tests.simulated import simulated, write_worker

pytestmark = pytest.mark.anyio

WORKER = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("ok")
"""


@pytest.fixture
async def simulator(tmp_path):
    """A project with the bucket ``lake``."""
    bucket = {"binding": "LAKE", "bucket_name": "lake"}
    write_worker(tmp_path, "w", WORKER, r2_buckets=[bucket])
    async with simulated(tmp_path, "w") as running:
        yield running


def parquet(columns, **options):
    """The bytes of a Parquet file."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()


async def read(simulator, content, **arguments):
    await simulator.primitives.bucket("lake").put("t.parquet", content)
    names = {"bucket": "lake", "key": "t.parquet"} | arguments
    return await operations.perform(simulator, "r2.table", names)


async def test_values_of_every_kind_are_shown(simulator):
    """Times are RFC 3339 text, bytes base64, decimals numbers; nested values keep their form."""
    time = dt.datetime(2026, 1, 2, 3, 4, 5, 600_000, dt.UTC)
    found = await read(
        simulator,
        parquet(
            {
                "n": pa.array([1, None]),
                "t": pa.array([time, None], pa.timestamp("us", "UTC")),
                "b": pa.array([b"\xff", None]),
                "d": pa.array([decimal.Decimal("1.50"), None]),
                "day": pa.array([time.date(), None]),
                "s": pa.array([{"l": [1, 2]}, None]),
                "e": pa.array(["x", None]).dictionary_encode(),
            }
        ),
    )
    assert [each["name"] for each in found["columns"]] == ["n", "t", "b", "d", "day", "s", "e"]
    assert found["columns"][0]["type"] == "int64"
    first, second = found["rows"]
    assert first["n"] == 1
    assert first["t"].startswith("2026-01-02T03:04:05.6")
    assert (first["b"], first["d"], first["day"]) == ("/w==", 1.5, "2026-01-02")
    assert (first["s"], first["e"]) == ({"l": [1, 2]}, "x")
    assert set(second.values()) == {None}
    assert found["total"] == 2


async def test_the_first_rows_are_read(simulator):
    """No more rows than asked for are returned, whatever the row groups; the count is of all."""
    content = parquet({"n": list(range(1_000))}, row_group_size=7)
    found = await read(simulator, content, limit=20)
    assert [row["n"] for row in found["rows"]] == list(range(len(found["rows"])))
    assert 0 < len(found["rows"]) <= 20
    assert found["total"] == 1_000
    assert (await read(simulator, parquet({"n": pa.array([], pa.int64())})))["rows"] == []


async def test_large_rows_are_fewer(simulator, monkeypatch):
    """Rows that exceed the size of a preview are left out, whole."""
    monkeypatch.setattr(engine, "PREVIEW_BYTES_MAX", 1_000)
    found = await read(simulator, parquet({"text": ["x" * 300] * 10}))
    assert found["rows"] == [{"text": "x" * 300}] * 3


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1", b"PAR1 no table PAR1", b"x" * 5_000, parquet({"n": [1] * 5_000})[:-9]],
)
async def test_other_bytes_are_one_line(simulator, content):
    """Bytes that are no Parquet file are an error with the key; the next file is read."""
    with pytest.raises(UsageError, match=r"^t\.parquet: cannot be read as Parquet: .") as refused:
        await read(simulator, content)
    assert "\n" not in str(refused.value)
    assert (await read(simulator, parquet({"n": [1]})))["rows"] == [{"n": 1}]


async def test_missing_and_large_objects_are_refused(simulator, monkeypatch):
    """The error names the key, or the limit."""
    with pytest.raises(UsageError, match="'lake' has no object 'u'"):
        await operations.perform(simulator, "r2.table", {"bucket": "lake", "key": "u"})
    monkeypatch.setattr(buckets, "PARQUET_BYTES_MAX", 1 << 20)
    with pytest.raises(UsageError, match=r"t\.parquet: is larger than the 1 MiB"):
        await read(simulator, b"x" * ((1 << 20) + 1))

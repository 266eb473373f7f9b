"""Parquet files of pipelines, read back by three engines: Arrow's, DataFusion's, ClickHouse's."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import datafusion
import pyarrow as pa
import pyarrow.parquet
import pytest

from edgesim.config.pipelines import Field
from edgesim.pipelines.segment import RowChunk
from edgesim.pipelines.sql.engine import SqlEngine
from edgesim.pipelines.sql.transformation import Transformation
from edgesim.pipelines.sql.wire import FileFormat, Query

FIELDS = [
    Field("string", "id", required=True),
    Field("int32", "small"),
    Field("int64", "large"),
    Field("float64", "ratio"),
    Field("float32", "half"),
    Field("bool", "ok"),
    Field("timestamp", "at", unit="microsecond"),
    Field("json", "props"),
    Field("binary", "raw"),
    Field("list", "tags", items=Field("string")),
    Field("struct", "geo", fields=[Field("string", "city"), Field("int32", "zip")]),
]
ROWS: list[dict[str, Any]] = [
    {
        "id": f"id-{number}",
        "small": number - 5,
        "large": (1 << 62) + number,
        "ratio": number / 3,
        "half": number / 4,
        "ok": number % 2 == 0,
        "at": f"2026-01-0{number % 9 + 1}T00:00:00.00000{number % 9 + 1}Z",
        "props": {"n": [number, None], "t": "\u00fc"},
        "raw": "AAEC",
        "tags": [f"t{each}" for each in range(number % 3)],
        "geo": {"city": "Oslo", "zip": number},
    }
    for number in range(10)
]
ROWS.append(dict.fromkeys(ROWS[0]) | {"id": "nulls"})
SENT = [
    row
    | {
        "props": row["props"]
        and json.dumps(row["props"], separators=(",", ":"), ensure_ascii=False),
        "raw": row["raw"] and b"\x00\x01\x02",
        "at": row["at"] and datetime.fromisoformat(row["at"]).replace(tzinfo=None),
    }
    for row in ROWS
]
"""The rows as values of their columns' types."""


def no_drops(*drop: Any) -> None:
    raise AssertionError(drop)


async def written(folder: Path, form: FileFormat, sql: str = "SELECT * FROM s") -> Path:
    engine = SqlEngine(folder / "sql")
    lines = [json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n" for row in ROWS]
    query = Query(sql, "s", FIELDS, "2026-01-01T00:00:00")
    whole = RowChunk("".join(lines).encode(), len(lines))
    path, done = await Transformation(engine, query, form, "file", lambda: iter([whole])).run(
        no_drops
    )
    assert done.rows == len(ROWS)
    kept = path.rename(folder / "file.parquet")
    await engine.close()
    return kept


def parquet(compression: str = "zstd", row_group_bytes: int = 1 << 30) -> FileFormat:
    return FileFormat("parquet", compression, row_group_bytes)


def by_clickhouse(path: Path) -> list[dict[str, Any]]:
    """Rows as ClickHouse reads them, in a process of its own."""
    settings = "output_format_json_quote_64bit_integers = 0"
    sql = f"SELECT * REPLACE (hex(raw) AS raw) FROM file('{path}') SETTINGS {settings}"
    code = "import chdb, sys; sys.stdout.write(str(chdb.query(sys.argv[1], 'JSONEachRow')))"
    done = subprocess.run(
        [sys.executable, "-c", code, sql], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.anyio
async def test_three_engines_read_what_was_sent(tmp_path):
    """Every type, nulls, and the order of the rows are the same for all of them."""
    path = await written(tmp_path, parquet())
    assert pyarrow.parquet.read_table(path).to_pylist() == SENT
    frame = datafusion.SessionContext().read_parquet(str(path))
    assert pa.Table.from_batches(frame.collect()).to_pylist() == SENT
    for row, read in zip(SENT, by_clickhouse(path), strict=True):
        at = datetime.fromisoformat(read.pop("at")) if read["at"] else read.pop("at")
        assert at == row["at"]
        assert bytes.fromhex(read.pop("raw") or "") == (row["raw"] or b"")
        assert (read.pop("tags") or None) == (row["tags"] or None)  # no null lists there
        geo = row["geo"] or {"city": None, "zip": None}
        assert read.pop("geo") in (geo, None)
        assert read == {name: row[name] for name in read}


@pytest.mark.anyio
@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "lz4", "uncompressed"])
async def test_every_compression_of_the_platform(tmp_path, compression):
    """The file names the codec, and has the same rows."""
    path = await written(tmp_path, parquet(compression))
    group = pyarrow.parquet.ParquetFile(path).metadata.row_group(0)
    assert group.column(0).compression.lower() == compression
    assert pyarrow.parquet.read_table(path).to_pylist() == SENT


@pytest.mark.anyio
async def test_row_groups_have_a_target_size(tmp_path):
    """Rows that reach the size end a group; with the default size one group holds them all."""
    engine = SqlEngine(tmp_path / "sql")
    rows = [{"id": f"{number}{'x' * 1_000_000}"} for number in range(9)]
    query = Query("SELECT * FROM s", "s", [Field("string", "id")], "2026-01-01T00:00:00")

    def chunks() -> Iterator[RowChunk]:
        return (RowChunk(json.dumps(row).encode() + b"\n", 1) for row in rows)

    for size, groups in ((1, 2), (1 << 30, 1)):
        form = parquet(row_group_bytes=size)
        path, _ = await Transformation(engine, query, form, "file", chunks).run(no_drops)
        assert pyarrow.parquet.ParquetFile(path).metadata.num_row_groups == groups
        assert pyarrow.parquet.read_table(path).to_pylist() == rows
    await engine.close()


@pytest.mark.anyio
async def test_the_schema_follows_from_the_statement(tmp_path):
    """Columns have the names and types of the SELECT; a required field is never null."""
    sql = "SELECT id, upper(id) AS big, small * 2 AS twice, date_trunc('day', at) AS day FROM s"
    schema = pyarrow.parquet.read_schema(await written(tmp_path, parquet(), sql))
    assert [(each.name, str(each.type)) for each in schema] == [
        ("id", "string"),
        ("big", "string"),
        ("twice", "int64"),
        ("day", "timestamp[us]"),
    ]
    assert not schema.field("id").nullable
    assert schema.field("twice").nullable


@pytest.mark.anyio
async def test_equal_rows_are_equal_bytes(tmp_path):
    """A file that is written again after a crash is the same file."""
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files.append((await written(tmp_path / name, parquet())).read_bytes())
    assert files[0] == files[1]

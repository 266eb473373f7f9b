"""Parquet files of a running project, read back by three engines: Arrow, DuckDB and ClickHouse."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.processes import dev, edgesim
from tests.simulated import write_worker

UNITS = {"second": 1, "millisecond": 1_000, "microsecond": 1_000_000, "nanosecond": 10**9}
SCHEMA: dict[str, Any] = {
    "fields": [
        {"name": "id", "type": "int32", "required": True},
        {"name": "text", "type": "string"},
        {"name": "yes", "type": "bool"},
        {"name": "i32", "type": "int32"},
        {"name": "i64", "type": "int64"},
        {"name": "f32", "type": "float32"},
        {"name": "f64", "type": "float64"},
        *({"name": f"at_{unit}", "type": "timestamp", "unit": unit} for unit in UNITS),
        {"name": "any", "type": "json"},
        {"name": "raw", "type": "binary"},
        {"name": "nested", "type": "list", "items": {"type": "list", "items": {"type": "int64"}}},
        {
            "name": "deep",
            "type": "struct",
            "fields": [
                {"name": "name", "type": "string"},
                {
                    "name": "points",
                    "type": "list",
                    "items": {
                        "type": "struct",
                        "fields": [
                            {"name": "x", "type": "float64"},
                            {"name": "when", "type": "timestamp", "unit": "second"},
                        ],
                    },
                },
            ],
        },
    ]
}
FULL: dict[str, Any] = {
    "id": 0,
    "text": '\u00fc \U0001f600 \u0000 "quoted" \\ \n\t \u2028 \u05d0',
    "yes": True,
    "i32": -(1 << 31),
    "i64": (1 << 63) - 1,
    "f32": 1.5,
    "f64": 1e308,
    **dict.fromkeys((f"at_{unit}" for unit in UNITS), "2026-11-29T23:59:59.987654321+02:00"),
    "any": {"b": [1, None, 1.5, "\u00fc"], "a": {}},
    "raw": "AP8QgA==",
    "nested": [[1, None], [], None, [-(1 << 63)]],
    "deep": {"name": "", "points": [{"x": -0.5, "when": 1}, None, {"x": None, "when": None}]},
}
RECORDS: list[dict[str, Any]] = [
    FULL,
    {"id": 1},
    FULL | {"id": 2, "text": "", "yes": False, "i32": (1 << 31) - 1, "i64": -(1 << 63)},
    FULL | {"id": 3, "f32": 3.4028234663852886e38, "f64": 5e-324, "any": 0, "raw": ""},
    FULL | {f"at_{unit}": count * 951_782_400 for unit, count in UNITS.items()} | {"id": 4},
    FULL | {f"at_{unit}": 0 for unit in UNITS} | {"id": 5, "nested": [], "any": [[]]},
    FULL | {"id": 6, "text": "x" * 100_000, "any": "text", "deep": {"points": []}},
]
MODULE = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("OK")
"""
EXTRA = "f64 / nullif(f64 - f64, 1) AS div, CAST('NaN' AS DOUBLE) AS nan"


def sent(record: dict[str, Any]) -> dict[str, Any]:
    """The row that a file must have, with times as nanoseconds since 1970."""
    row = {field["name"]: record.get(field["name"]) for field in SCHEMA["fields"]}
    for unit, count in UNITS.items():
        value = row[f"at_{unit}"]
        if isinstance(value, str):
            moment = datetime.fromisoformat(value[:19] + value[29:]).astimezone(UTC)
            nanoseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
            value = (nanoseconds * 10**9 + int(value[20:29])) * count // 10**9
        row[f"at_{unit}"] = None if value is None else value * 10**9 // count
    if row["any"] is not None:
        row["any"] = json.dumps(row["any"], separators=(",", ":"), ensure_ascii=False)
    row["raw"] = {"AP8QgA==": "00ff1080", "": "", None: None}[row["raw"]]
    if row["deep"] is not None:
        points = row["deep"].get("points")
        row["deep"] = {"name": row["deep"].get("name"), "points": points}
    return row


SENT = [sent(record) for record in RECORDS]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Parquet file that the records become."""
    folder = tmp_path_factory.mktemp("parquet")
    project, state = folder / "project", folder / "state"
    project.mkdir()
    (project / "rows.json").write_text(json.dumps(SCHEMA))
    (project / "edgesim.toml").write_text(
        'workers = ["main"]\n[streams.rows]\nschema = "rows.json"\n[sinks.lake]\nbucket = "lake"\n'
        f'[pipelines.flow]\nsql = "INSERT INTO lake SELECT *, {EXTRA} FROM rows"\n'
    )
    write_worker(project, "main", MODULE)
    with dev(project, state, "--no-reload") as running:
        for record in RECORDS:
            body = json.dumps([record]).encode()
            status, answer = running.request("/cdn-cgi/edgesim/ingest/rows", body)
            assert (status, json.loads(answer)["success"]) == (200, True)
        stats = running.drain()
        assert stats["streams"]["rows"]["dropped"] == {}
        assert running.stop() == 0
    where = ("--project", project, "--state", state)
    [line] = edgesim("r2", "ls", "lake", *where).stdout.splitlines()
    got = edgesim("r2", "get", "lake", line.split()[0], "--out", folder / "f.parquet", *where)
    assert got.returncode == 0, got.stderr
    return folder / "f.parquet"


def test_arrow(file):
    """Every value, to the last bit and digit; nulls in lists and structs stay apart."""
    table = pyarrow.parquet.read_table(file)
    for unit in UNITS:
        name = f"at_{unit}"
        whole = table[name].cast(pa.timestamp("ns")).cast(pa.int64())
        table = table.set_column(table.schema.get_field_index(name), name, whole)
    for row, wanted in zip(table.to_pylist(), SENT, strict=True):
        assert str(row.pop("div")) in {"inf", "None"}
        assert row.pop("nan") != 0
        row["raw"] = None if row["raw"] is None else row["raw"].hex()
        for point in (row["deep"] or {}).get("points") or []:
            if point and point["when"]:
                point["when"] = int(point["when"].replace(tzinfo=UTC).timestamp())
        assert row == wanted


def test_duckdb(file):
    """DuckDB reads the same scalars, nested values and special numbers."""
    times = ", ".join(f"epoch_ns(at_{unit}) AS at_{unit}" for unit in UNITS)
    relation = duckdb.sql(
        f"SELECT * REPLACE ({times}, lower(hex(raw)) AS raw, CAST(deep AS JSON) AS deep),"
        f" isnan(nan) AS is_nan, isinf(div) AS is_inf FROM read_parquet('{file}') ORDER BY id"
    )
    assert relation is not None
    found = relation.fetchall()
    names = [each["name"] for each in SCHEMA["fields"]]
    for values, wanted in zip(found, SENT, strict=True):
        row = dict(zip(names, values, strict=False))
        deep = row.pop("deep")
        assert row == {name: wanted[name] for name in row}
        assert values[-2] is True
        assert values[-1] is (True if wanted["f64"] is not None else None)
        read = json.loads(deep) if deep else None
        if read is not None:
            for point in read["points"] or []:
                if point and point["when"]:
                    moment = datetime.fromisoformat(point["when"]).replace(tzinfo=UTC)
                    point["when"] = int(moment.timestamp())
        assert read == wanted["deep"]


def test_clickhouse(file):
    """ClickHouse reads the same scalars; a null list is an empty one there."""
    times = ", ".join(
        f"toUnixTimestamp64Nano(toDateTime64(at_{unit}, 9)) AS at_{unit}" for unit in UNITS
    )
    sql = (
        f"SELECT * REPLACE ({times}, lower(hex(raw)) AS raw), isNaN(nan) AS is_nan"
        f" FROM file('{file}') ORDER BY id SETTINGS output_format_json_quote_64bit_integers = 0,"
        " output_format_json_quote_denormals = 1"
    )
    code = "import chdb, sys; sys.stdout.write(str(chdb.query(sys.argv[1], 'JSONEachRow')))"
    done = subprocess.run(
        [sys.executable, "-c", code, sql], capture_output=True, text=True, check=True
    )
    for line, wanted in zip(done.stdout.splitlines(), SENT, strict=True):
        row = json.loads(line)
        assert row.pop("is_nan") == 1
        for name in ("id", "text", "yes", "i32", "i64", "f32", "f64", "any", *row):
            if name.startswith("at_") or name in {"id", "text", "yes", "i32", "i64", "f64", "any"}:
                assert (name, row[name]) == (name, wanted[name])
        assert (row["raw"] or "") == (wanted["raw"] or "")
        assert [each or [] for each in row["nested"] or []] == [
            each or [] for each in wanted["nested"] or []
        ]

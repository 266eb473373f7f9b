"""Schema, SQL and Parquet of a stream against bare DataFusion on the same records; `make bench`.

Both read 100,000 records, filter them and write one zstd Parquet file.  Bare DataFusion reads an
NDJSON file; the stream takes sends of 500 records, which are checked, made durable and transformed.
Prints records a second and the ratio; --records N sets another number.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import anyio
import datafusion
import msgspec

sys.path.insert(0, str(Path(__file__).parents[2]))
from edgesim.clock import Clock
from edgesim.config.dataflow import RecordStreamConfig, StreamSpec
from edgesim.config.pipelines import Field
from edgesim.config.sinks import SinkConfig
from edgesim.config.sql_statements import read_statements
from edgesim.pipelines.sinks.sql_files import SqlFiles
from edgesim.pipelines.sql.engine import SqlEngine
from edgesim.pipelines.sql.queries import query_of
from edgesim.pipelines.streams.stream import RecordStream
from edgesim.r2.bucket import Bucket
from edgesim.r2.local.memory import open_r2
from edgesim.r2.notifications import Notifications

FIELDS = [
    Field("string", "player", required=True),
    Field("string", "event", required=True),
    Field("int64", "score", required=True),
    Field("float64", "x"),
    Field("string", "text"),
]
SQL = "SELECT player, score, upper(text) AS text FROM plays WHERE score > 100"
BATCH = 500


def records(count):
    return [
        {
            "player": f"p{number % 1000}",
            "event": ("kill", "chat", "buy")[number % 3],
            "score": number % 500,
            "x": number / 7,
            "text": f"some text of record {number}",
        }
        for number in range(count)
    ]


def bare(file, out):
    """Seconds of DataFusion alone, one partition."""
    context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(1))
    begun = time.perf_counter()
    context.register_json("plays", str(file), file_extension=".ndjson")
    context.sql(SQL).write_parquet(str(out), compression="zstd", compression_level=1)
    return time.perf_counter() - begun


async def streamed(folder, bodies):
    """Seconds of the stream: the sends, and the window's file."""
    clock = Clock()
    sink = SinkConfig("plays", format="parquet", compression="zstd", roll_interval=3600)
    engine = SqlEngine(folder / "sql")
    [statement] = read_statements(f"INSERT INTO plays {SQL}")
    async with open_r2("memory:", clock, folder / "local") as driver:
        bucket = Bucket("plays", driver, clock, Notifications({}, clock, "account"))
        query = query_of(statement, FIELDS, clock)
        await engine.describe(query)
        stream = RecordStream(
            StreamSpec("plays", RecordStreamConfig(), FIELDS), folder / "log", clock
        )
        stream.add_reader("plays", SqlFiles("plays", sink, bucket, query, engine))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.run)
            begun = time.perf_counter()
            for body in bodies:
                await stream.send(msgspec.json.decode(body))
            sent = time.perf_counter()
            await stream.roll()
            ended = time.perf_counter()
            tasks.cancel_scope.cancel()
        stream.close()
    await engine.close()
    return sent - begun, ended - sent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    count = parser.parse_args().records
    rows = records(count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "plays.ndjson"
        file.write_bytes(msgspec.json.Encoder().encode_lines(rows))
        bodies = [
            msgspec.json.encode(rows[start : start + BATCH]) for start in range(0, count, BATCH)
        ]
        alone = min(bare(file, folder / f"bare-{each}") for each in range(3))
        sends, files = anyio.run(streamed, folder, bodies)
    print(f"DataFusion alone           {count / alone:>12,.0f} records/s")
    print(f"stream: schema and log     {count / sends:>12,.0f} records/s")
    print(f"stream: SQL and Parquet    {count / files:>12,.0f} records/s")
    print(f"stream: all of it          {count / (sends + files):>12,.0f} records/s")
    print(f"ratio of SQL and Parquet   {alone / files:>12.2f}")
    print(f"ratio of all               {alone / (sends + files):>12.2f}")


if __name__ == "__main__":
    main()

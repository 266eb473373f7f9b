"""Schema, SQL and Parquet of a stream against bare DataFusion on the same records; `make bench`.

Both read 100,000 records, filter them and write one zstd Parquet file.  Bare DataFusion reads an
NDJSON file; the stream takes bodies of 500 records as HTTP ingest does, from 16 senders at a time,
which are checked, made durable and transformed.  Prints records a second and ratios, by time on the
clock and by CPU time of all processes; --records N sets another number, --rounds N how often (the
best counts).
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

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
from edgesim.pipelines.sinks.statement import SinkStatement
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
SENDERS = 16


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


class Spent(NamedTuple):
    """Seconds on the clock, and CPU seconds of this process and the SQL process."""

    clock: float
    cpu: float

    def since(self, begun: "Spent") -> "Spent":
        return Spent(self.clock - begun.clock, self.cpu - begun.cpu)


def now(pid=None):
    """The time now; ``pid`` is that of the SQL process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = usage.ru_utime + usage.ru_stime
    if pid is not None:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        cpu += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return Spent(time.perf_counter(), cpu)


def bare(file, out):
    """DataFusion alone, one partition."""
    context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(1))
    begun = now()
    context.register_json("plays", str(file), file_extension=".ndjson")
    context.sql(SQL).write_parquet(str(out), compression="zstd", compression_level=1)
    return now().since(begun)


async def streamed(folder, bodies, rounds):
    """The stream: the sends, and the window's file, of each round."""
    clock = Clock()
    sink = SinkConfig("plays", format="parquet", compression="zstd", roll_interval=3600)
    engine = SqlEngine(folder / "sql")
    [statement] = read_statements(f"INSERT INTO plays {SQL}")
    found = []
    async with open_r2("memory:", clock, folder / "local") as driver:
        bucket = Bucket("plays", driver, clock, Notifications({}, clock, "account"))
        query = query_of(statement, FIELDS, clock)
        await engine.describe(query)
        assert engine._process is not None
        pid = engine._process.pid
        stream = RecordStream(
            StreamSpec("plays", RecordStreamConfig(), FIELDS), folder / "log", clock
        )
        running = SinkStatement("plays", query, engine, folder / "cuts", clock)
        stream.add_reader("plays", SqlFiles("plays", sink, bucket, running))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.run)
            for _ in range(rounds):
                begun = now(pid)
                await send_all(stream, bodies)
                sent = now(pid)
                await stream.roll()
                found.append((sent.since(begun), now(pid).since(sent)))
            tasks.cancel_scope.cancel()
        stream.close()
    await engine.close()
    return found


async def send_all(stream, bodies):
    """Send from several senders; each waits for its answer."""
    waiting = iter(bodies)

    async def send():
        for body in waiting:
            await stream.send_json(body)

    async with anyio.create_task_group() as senders:
        for _ in range(SENDERS):
            senders.start_soon(send)


def best(spent):
    """The least of each."""
    return Spent(*(min(each) for each in zip(*spent, strict=True)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    count, rounds = arguments.records, arguments.rounds
    rows = records(count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "plays.ndjson"
        file.write_bytes(msgspec.json.Encoder().encode_lines(rows))
        bodies = [
            msgspec.json.encode(rows[start : start + BATCH]) for start in range(0, count, BATCH)
        ]
        alone = best([bare(file, folder / f"bare-{each}") for each in range(rounds)])
        found = anyio.run(streamed, folder, bodies, rounds)
    sends, files = best([each for each, _ in found]), best([each for _, each in found])
    everything = Spent(*(sum(each) for each in zip(sends, files, strict=True)))
    for title, spent in (
        ("DataFusion alone", alone),
        ("stream: schema and log", sends),
        ("stream: SQL and Parquet", files),
        ("stream: all of it", everything),
    ):
        print(f"{title:26} {count / spent.clock:>12,.0f} records/s {spent.cpu:8.3f} s of CPU")
    for title, spent in (("SQL and Parquet", files), ("all", everything)):
        by_clock, by_cpu = alone.clock / spent.clock, alone.cpu / spent.cpu
        print(f"ratio of {title:17} {by_clock:>12.2f} by the clock {by_cpu:8.2f} by CPU")


if __name__ == "__main__":
    main()

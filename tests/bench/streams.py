"""Schema, SQL and Parquet of a stream against bare DataFusion on the same records; `make bench`.

Both read 100,000 records, filter them and write one zstd Parquet file.  Bare DataFusion reads an
NDJSON file; the stream takes bodies of 500 records as HTTP ingest does, from 16 senders at a time,
which are checked, made durable and transformed.  Prints records a second of the best round, and
ratios by time on the clock and by CPU time of all processes.  Each round has both, one after the
other, so that what else the machine does costs both the same: the median of the rounds' ratios
counts, with the lowest and the highest beside it.  --records N sets another number, --rounds N how
often.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import anyio
import datafusion
import msgspec
import structlog

sys.path.insert(0, str(Path(__file__).parents[2]))
from edgesim.clock import Clock
from edgesim.config.dataflow import RecordStreamConfig, StreamSpec
from edgesim.config.pipelines import Field
from edgesim.config.sinks import SinkConfig
from edgesim.config.sql_statements import read_statements
from edgesim.isolates.host.cpu_clock import cpu_seconds
from edgesim.pipelines.sinks.sql_files import SqlFiles
from edgesim.pipelines.sinks.statement import SinkStatement
from edgesim.pipelines.sql.engine import SqlEngine
from edgesim.pipelines.sql.queries import query_of
from edgesim.pipelines.streams.row_types import RowType
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
        cpu += cpu_seconds(pid) or 0
    return Spent(time.perf_counter(), cpu)


class Round(NamedTuple):
    """The spent time of a round, by stage."""

    bare: Spent
    schema: Spent
    sends: Spent
    files: Spent

    def of(self, *stages: str) -> Spent:
        """The sum of some stages."""
        spent = [getattr(self, stage) for stage in stages]
        return Spent(*(sum(each) for each in zip(*spent, strict=True)))


def bare(file, out):
    """DataFusion alone, one partition."""
    context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(1))
    begun = now()
    context.register_json("plays", str(file), file_extension=".ndjson")
    context.sql(SQL).write_parquet(str(out), compression="zstd", compression_level=1)
    return now().since(begun)


def checked(bodies):
    """The schema alone: the rows of the bodies as the log has them."""
    row_type, encoder = RowType(FIELDS), msgspec.json.Encoder()
    begun = now()
    for body in bodies:
        rows = row_type.decoded(body)
        assert rows is not None
        encoder.encode_lines(rows)
        del rows
    return now().since(begun)


async def run_rounds(folder, file, bodies, rounds):
    """Run all stages, several times."""
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
            for number in range(rounds):
                alone, schema = bare(file, folder / f"bare-{number}"), checked(bodies)
                begun = now(pid)
                await send_all(stream, bodies)
                sent = now(pid)
                await stream.roll()
                found.append(Round(alone, schema, sent.since(begun), now(pid).since(sent)))
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


def spread(ratios):
    """The median, and the lowest and the highest."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    count, rounds = arguments.records, arguments.rounds
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
    rows = records(count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "plays.ndjson"
        file.write_bytes(msgspec.json.Encoder().encode_lines(rows))
        bodies = [
            msgspec.json.encode(rows[start : start + BATCH]) for start in range(0, count, BATCH)
        ]
        found = anyio.run(run_rounds, folder, file, bodies, rounds)
    for title, stages in {
        "DataFusion alone": ["bare"],
        "stream: schema": ["schema"],
        "stream: schema and log": ["sends"],
        "stream: SQL and Parquet": ["files"],
        "stream: all of it": ["sends", "files"],
    }.items():
        spent = best([each.of(*stages) for each in found])
        print(f"{title:30} {count / spent.clock:>12,.0f} records/s {spent.cpu:8.3f} s of CPU")
    for title, stages in {
        "SQL and Parquet": ["files"],
        "schema, SQL and Parquet": ["schema", "files"],
        "schema, log, SQL and Parquet": ["sends", "files"],
    }.items():
        by_clock, by_cpu = (
            spread([each.bare[kind] / each.of(*stages)[kind] for each in found]) for kind in (0, 1)
        )
        print(f"{title:30} ratio {by_clock} by the clock, {by_cpu} by CPU")


if __name__ == "__main__":
    main()

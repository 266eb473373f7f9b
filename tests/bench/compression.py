"""Compression ratio of the events table for a million generated events; `make bench`.

Events are those of examples/game-events after the receiver's validation, inserted by the insert
Worker's own statement into the table of workers/insert/schema.sql.  Prints each column's share and
fails below a ratio of 6.5, raw NDJSON against the bytes of the table.  --events N sets another
number.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode

import anyio

sys.path.insert(0, str(Path(__file__).parents[2]))
from edgesim.clickhouse.chdb.driver import open_clickhouse
from edgesim.clickhouse.gateway import Gateway
from edgesim.model import HttpRequest, Stream, read_all
from tests.processes import ROOT, WORKERS
from tests.unit.workers.test_event import event, load

LEAST = 6.5
CHUNK_BYTES = 1 << 20
COLUMNS = """
SELECT column, any(type), sum(column_data_compressed_bytes),
       sum(column_data_uncompressed_bytes)
FROM system.parts_columns WHERE table = 'events' AND active
GROUP BY column ORDER BY sum(column_data_compressed_bytes) DESC"""


def generate(count, target):
    """Write NDJSON as a Pipeline does and return its bytes."""
    generator = ROOT / "examples" / "game-events" / "generate.py"
    command = [sys.executable, str(generator), "--count", str(count), "--seed", "7"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    with target.open("w") as file:
        for line in process.stdout:
            [clean] = event.read_events(line, 2**43)
            file.write(event.to_line(clean) + "\n")
    assert process.wait() == 0
    return target.stat().st_size


def chunks(file):
    async def read():
        with file.open("rb") as opened:
            while chunk := opened.read(CHUNK_BYTES):
                yield chunk

    return Stream(read())


async def measure(folder, ndjson):
    """Return the rows of COLUMNS, and the table's rows and bytes."""
    sys.path.insert(0, str(WORKERS / "insert"))
    tables = load("insert", "tables")
    schema = (WORKERS / "insert" / "schema.sql").read_text()
    async with open_clickhouse(f"chdb:{folder}/clickhouse") as database:
        gateway = Gateway(database, schema)

        async def ask(query, data=b"", **settings):
            url = "http://clickhouse/?" + urlencode({"query": query, **settings})
            answer = await gateway.fetch(HttpRequest("POST", url, [], data))
            text = (await read_all(answer.body)).decode()
            assert answer.status == 200, text
            return text

        await ask("SELECT 1")
        await ask(tables.TABLES["events"].insert, chunks(ndjson), **tables.SETTINGS)
        await ask("OPTIMIZE TABLE events FINAL")
        columns = json.loads(await ask(COLUMNS, default_format="JSONCompact"))["data"]
        sizes = "SELECT sum(rows), sum(data_compressed_bytes) FROM system.parts"
        parts = await ask(f"{sizes} WHERE table = 'events' AND active")
        rows, size = map(int, parts.split())
        return columns, rows, size


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="edgesim-bench-"))
    try:
        raw = generate(options.events, folder / "events.ndjson")
        columns, rows, size = anyio.run(measure, folder, folder / "events.ndjson")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert rows == options.events, rows
    print(f"{rows:,} events, {raw / 1e6:.1f} MB of NDJSON")
    print(f"{'column':>12} {'type':>24} {'MB':>8} {'of it all':>9} {'of its values':>13}")
    for name, kind, *sizes in columns:
        packed, unpacked = map(int, sizes)
        share, ratio = f"{packed / size:.1%}", f"{unpacked / packed:.1f}x"
        print(f"{name:>12} {kind:>24} {packed / 1e6:8.2f} {share:>9} {ratio:>13}")
    print(f"{'table':>12} {'':>24} {size / 1e6:8.2f} {'':>9} {raw / size:12.1f}x of the NDJSON")
    assert raw / size >= LEAST, f"{raw / size:.2f}x; at least {LEAST}x is promised"


if __name__ == "__main__":
    main()

"""Power cuts: acknowledged data is on the disk, once.

The tests need root and loop devices, and are skipped elsewhere.
"""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import anyio
import pytest

from edgesim.clickhouse.chdb.driver import ChdbClickHouse, open_clickhouse
from edgesim.clickhouse.gateway import Gateway
from edgesim.model import HttpRequest, read_all
from tests.crash.crash_world import Load, copy_of_workers
from tests.crash.power import PowerDisk, power_disk
from tests.processes import Dev, dev, edgesim

SENDERS = 3
EVENTS_MIN = 150
DDL = [
    "CREATE TABLE t (n UInt32) ENGINE = MergeTree ORDER BY n",
    "ALTER TABLE t MODIFY SETTING non_replicated_deduplication_window = 1000",
    "ALTER TABLE t ADD COLUMN twice UInt32 DEFAULT n * 2",
    "CREATE VIEW v AS SELECT sum(twice) AS s FROM t",
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerDisk]:
    with power_disk(tmp_path) as found:
        yield found


@pytest.mark.timeout(180)
def test_the_chain_loses_and_doubles_nothing(tmp_path, disk):
    """From PIPELINE.send to ClickHouse: cut under load, cut after drain, and a requeue."""
    project = copy_of_workers(tmp_path, window_seconds=0.3)
    state = disk.path / "state"
    load = Load()
    with dev(project, state, "--no-reload", "--quiet") as running:
        send_until_the_cut(running, load, disk)
    disk.restore()
    with dev(project, state, "--no-reload", "--quiet") as running:
        running.drain()
        assert_each_once(running, load)
        cut(running, disk)
    disk.restore()
    with dev(project, state, "--no-reload", "--quiet") as running:
        assert_each_once(running, load)  # before any insert can run again
        done = edgesim("r2", "requeue", "events", "--project", project, "--state", state)
        assert done.returncode == 0, done.stderr
        running.drain()
        assert_each_once(running, load)
        assert running.stop() == 0


def send_until_the_cut(running: Dev, load: Load, disk: PowerDisk) -> None:
    """Post until enough events are acknowledged, then cut the power under load."""
    stop = threading.Event()
    clients = [
        threading.Thread(target=load.post, args=(running.url, stop), daemon=True)
        for _ in range(SENDERS)
    ]
    for client in clients:
        client.start()
    deadline = time.monotonic() + 60
    while len(load.acknowledged) < EVENTS_MIN or not running.sql("SELECT 1 FROM events LIMIT 1"):
        assert time.monotonic() < deadline, "nothing is acknowledged"
    before = load.acknowledged.copy()
    cut(running, disk)
    stop.set()
    for client in clients:
        client.join(60)
    load.acknowledged = before  # ext4 may report success for a flush in progress at the cut


def cut(running: Dev, disk: PowerDisk) -> None:
    """Stop the disk, then kill: no write of the exiting processes reaches the disk."""
    disk.cut()
    running.process.send_signal(signal.SIGKILL)
    running.process.wait(60)


def assert_each_once(running: Dev, load: Load) -> None:
    rows = Counter(row["player_id"] for row in running.sql("SELECT player_id FROM events"))
    assert load.acknowledged - rows.keys() == set()
    assert {name for name, count in rows.items() if count > 1} == set()


class Engine:
    """Embedded ClickHouse as a Worker sees it."""

    def __init__(self, database: ChdbClickHouse) -> None:
        self._database = database
        self._gateway = Gateway(database)

    async def ask(self, query: str, body: str = "", **settings: str) -> tuple[int, str]:
        """Run a statement and return its status and text."""
        url = "http://c/?" + urlencode({"query": query, **settings})
        answer = await self._gateway.fetch(HttpRequest("POST", url, [], body.encode()))
        return answer.status, (await read_all(answer.body)).decode()

    async def insert(self, number: int) -> int:
        """Insert a row with its own deduplication token and return the status."""
        token = {"insert_deduplication_token": str(number)}
        return (await self.ask("INSERT INTO t (n) FORMAT CSV", f"{number}\n", **token))[0]

    async def kill(self) -> None:
        process = self._database._process
        assert process is not None
        process.kill()
        await process.wait()


@pytest.mark.anyio
async def test_embedded_clickhouse_keeps_what_it_acknowledged(disk):
    """Rows, tables and deduplication tokens survive the cut; no rejected insert is stored later."""
    stored: list[int] = []
    async with open_clickhouse(f"chdb:{disk.path}/db") as database:
        engine = Engine(database)
        for sql in DDL:
            assert (await engine.ask(sql))[0] == 200

        async def insert(number: int) -> None:
            if await engine.insert(number) == 200:
                stored.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(insert, number)
        disk.cut()
        assert await engine.insert(99) >= 500
        await engine.kill()
    disk.restore()
    assert sorted(stored) == list(range(20))
    async with open_clickhouse(f"chdb:{disk.path}/db") as database:
        engine = Engine(database)
        assert (await engine.ask("SELECT count(), sum(n) FROM t"))[1] == "20\t190\n"
        for number in range(20):
            assert await engine.insert(number) == 200
        assert (await engine.ask("SELECT count() FROM t"))[1] == "20\n"
        assert (await engine.ask("SELECT s FROM v"))[1] == "380\n"

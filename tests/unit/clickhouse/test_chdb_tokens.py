"""After a power cut, deduplication tokens of stored rows are known, and no other tokens."""

import fcntl
import os
import resource
import shutil
import sys
from contextlib import asynccontextmanager

import pytest

from edgesim.clickhouse.chdb.driver import ChdbClickHouse, open_clickhouse
from edgesim.clickhouse.driver import Statement
from edgesim.errors import ClickHouseError

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        "not __import__('importlib.util').util.find_spec('chdb')", reason="chdb is not installed"
    ),
]
TABLE = """
    CREATE TABLE t (n UInt32) ENGINE = MergeTree ORDER BY n PARTITION BY n % 2
    SETTINGS non_replicated_deduplication_window = 1000"""
TORN = {
    "zeros": b"\0" * 59,
    "half a line": b"1\t1_9_9_0\t1_1654",
    "a line without its end": b"1\t1_9_9_0\t1_1654_2085",
}


class Database:
    """A database that a test opens, damages while closed and opens again."""

    def __init__(self, path):
        self.path = path
        self._engine: ChdbClickHouse | None = None

    @asynccontextmanager
    async def opened(self):
        async with open_clickhouse(f"chdb:{self.path}") as self._engine:
            yield

    async def run(self, sql, data=b"", **settings):
        assert self._engine is not None
        answer = await self._engine.execute(Statement(sql, data, settings=settings))
        return b"".join([chunk async for chunk in answer.body]).decode().strip()

    async def insert(self, *numbers, table="t"):
        for number in numbers:
            token = {"insert_deduplication_token": str(number)}
            await self.run(f"INSERT INTO {table} FORMAT CSV", b"%d\n" % number, **token)

    async def numbers(self, table="t"):
        rows = await self.run(f"SELECT n FROM {table} ORDER BY n")
        return [int(row) for row in rows.split()]

    @property
    def pid(self):
        assert self._engine is not None
        assert self._engine._process is not None
        return self._engine._process.pid

    def log(self):
        (found,) = self.path.glob("store/*/*/deduplication_logs/*.txt")
        return found

    def part(self, name):
        (found,) = self.path.glob(f"store/*/*/{name}")
        return found


@pytest.fixture
def database(tmp_path):
    return Database(tmp_path / "db")


@pytest.mark.parametrize("torn", TORN.values(), ids=TORN)
async def test_a_torn_end_of_a_log_hides_no_later_token(database, torn):
    """Tokens that the engine appends after a torn line are known after the next start."""
    async with database.opened():
        await database.run(TABLE)
        await database.insert(0, 1, 2)
    with database.log().open("ab") as log:
        log.write(torn)
    async with database.opened():
        await database.insert(3, 4, 5)
    async with database.opened():
        await database.insert(*range(6))
        assert await database.numbers() == [*range(6)]


async def test_tokens_behind_a_torn_line_are_known_again(database):
    """Tokens after a torn line in the middle of a log are known after the repair."""
    async with database.opened():
        await database.run(TABLE)
        await database.insert(*range(6))
    log = database.log()
    first, *others = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(first + b"1\t1_9_9_0\t1_16" + b"".join(others))
    async with database.opened():
        await database.insert(*range(6))
        assert await database.numbers() == [*range(6)]


def lose(part):
    """Simulate a rename of the part that was not durable."""
    shutil.rmtree(part)


def empty(part):
    """Simulate a durable part name whose content was not durable."""
    for file in part.iterdir():
        file.write_bytes(b"")


@pytest.mark.parametrize("damage", [lose, empty])
async def test_a_token_without_rows_is_forgotten(database, damage):
    """The token of a lost part is forgotten, so a retry stores its rows; other tokens are kept."""
    async with database.opened():
        await database.run(TABLE)
        await database.insert(*range(6))
    damage(database.part("1_6_6_0"))
    async with database.opened():
        assert await database.numbers() == [*range(5)]
        await database.insert(*range(6))
        assert await database.numbers() == [*range(6)]


async def test_a_whole_log_is_left_alone(database):
    """An undamaged log is not rewritten, also after merged, deleted and dropped parts."""
    async with database.opened():
        await database.run(TABLE)
        await database.insert(*range(8))
        await database.run("OPTIMIZE TABLE t FINAL")
        await database.run("ALTER TABLE t DELETE WHERE n = 4 SETTINGS mutations_sync = 2")
        await database.run("ALTER TABLE t DROP PARTITION 1")
    before = database.log().read_bytes(), database.log().stat().st_ino
    async with database.opened():
        assert before == (database.log().read_bytes(), database.log().stat().st_ino)
        await database.insert(*range(8))
        assert await database.numbers() == [0, 1, 2, 3, 5, 6, 7]


async def test_a_repaired_table_still_feeds_its_views(database):
    """A table with dependents is repaired at the start and still feeds its views."""
    async with database.opened():
        await database.run(TABLE)
        await database.run("CREATE TABLE copy (n UInt32) ENGINE = MergeTree ORDER BY n")
        await database.run("CREATE MATERIALIZED VIEW v TO copy AS SELECT n FROM t")
        await database.run("CREATE VIEW w AS SELECT n FROM t")
        await database.insert(0, 1)
    with database.log().open("ab") as log:
        log.write(b"\0" * 10)
    async with database.opened():
        await database.insert(2)
        assert await database.numbers("copy") == [0, 1, 2]
    assert b"\0" not in database.log().read_bytes()


def written_through(path):
    """True if the kernel syncs each write to the file; None if the file system has no such flag."""
    if sys.platform != "linux":
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        flags = fcntl.ioctl(descriptor, 0x80086601, bytes(4))  # FS_IOC_GETFLAGS
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return bool(int.from_bytes(flags, sys.byteorder) & 8)


async def test_a_token_that_was_dropped_and_noted_again_has_its_last_part(database):
    """Only the last line of a token counts: its lost part makes the token unknown."""
    async with database.opened():
        await database.run(TABLE)
        await database.insert(1, 2)
        await database.run("ALTER TABLE t DROP PARTITION 1")
        await database.insert(1)
    shutil.rmtree(database.part("1_3_3_0"))
    async with database.opened():
        await database.insert(1, 2)
        assert await database.numbers() == [1, 2]


async def test_an_insert_whose_token_cannot_be_written_fails(database):
    """An insert whose token cannot be written fails and drops its part; a retry stores it once."""
    async with database.opened():
        await database.run(f"{TABLE}, max_bytes_to_merge_at_max_space_in_pool = 1")
        await database.insert(*range(150))  # makes the log the longest file
        pid = database.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        room = database.log().stat().st_size + 20
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, before[1]))
        for number in (150, 151):
            with pytest.raises(ClickHouseError, match="disk is full"):
                await database.insert(number)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
        assert await database.numbers() == [*range(150)]
        await database.insert(150, 151, 152)
    async with database.opened():
        await database.insert(*range(153))
        assert await database.numbers() == [*range(153)]


async def test_a_token_is_on_disk_before_its_part(database, tmp_path):
    """Token logs of new and altered tables, and rotated logs, are opened for write-through."""
    if written_through(tmp_path) is None:
        pytest.skip("this file system does not know the attribute S")
    async with database.opened():
        await database.run("CREATE TABLE later (n UInt32) ENGINE = MergeTree ORDER BY n")
        change = "ALTER TABLE later MODIFY SETTING non_replicated_deduplication_window = 1000"
        await database.run(change)
        await database.insert(1, table="later")
        window = "non_replicated_deduplication_window = 2"
        await database.run(f"{TABLE.partition('SETTINGS')[0]} SETTINGS {window}")
        await database.insert(*range(5))
        logs = {*database.path.glob("store/*/*/deduplication_logs/*.txt")}
        assert len(logs) == 3
        assert all(map(written_through, logs))
        assert not written_through(database.part("1_2_2_0") / "checksums.txt")

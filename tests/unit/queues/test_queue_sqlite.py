"""The SQLite queue store: durability, and errors when its file is unusable."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edgesim.clock import Clock
from edgesim.errors import RunError
from edgesim.queues.driver import Depth, NewMessage
from edgesim.queues.sqlite.driver import open_queues, open_store

pytestmark = pytest.mark.anyio

SENDER = """
import os, signal, sys
import anyio
from edgesim.clock import Clock
from edgesim.queues.producer import MessageSendRequest, Queue
from edgesim.queues.sqlite.driver import open_queues

async def main():
    clock = Clock()
    async with open_queues(sys.argv[1], clock) as driver:
        queue = Queue("q", driver, clock)
        for number in range(int(sys.argv[2])):
            if number % 3:
                await queue.send(b"%d" % number, "text")
            else:
                await queue.send_batch([MessageSendRequest(b"%d" % number, "text")] * 3)
            print(number, flush=True)
        await queue.lease(5, 3600)
        print("leased", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main)
"""

HOLDER = """
import sys
import anyio
from edgesim.clock import Clock
from edgesim.queues.sqlite.driver import open_queues

async def main():
    async with open_queues(sys.argv[1], Clock()):
        print("open", flush=True)
        sys.stdin.read()

anyio.run(main)
"""


@pytest.fixture
def path(tmp_path):
    """The path of a file that does not exist yet, nor do its folders."""
    return tmp_path / "state" / "deep" / "queues.db"


@contextlib.contextmanager
def child(script, *arguments):
    """Run a script in a process; wait for its exit at the end of the block."""
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.communicate(timeout=60)


async def opened(path):
    """Open and close the store at ``path``."""
    async with open_queues(f"sqlite:{path}", Clock()):
        pass


async def test_messages_survive_reopening(path):
    """Messages and their attempts survive reopening; their leases end."""
    now = Clock().now()
    messages = [
        NewMessage("a", b"\x00", "bytes", 5, now),
        NewMessage("b", b"2", "json", 6, now),
        NewMessage("c", b"3", "text", 7, now + 60),
    ]
    async with open_queues(f"sqlite:{path}", Clock()) as driver:
        await driver.send("q", messages)
        await driver.lease("q", 1, now, now + 3600)
        before = await driver.peek("q", 9)
    async with open_queues(f"sqlite:{path}", Clock()) as driver:
        assert await driver.peek("q", 9) == before
        assert await driver.depth("q") == Depth(3, 3, 5, now)
        assert await driver.names() == ["q"]
        leased = await driver.lease("q", 9, now, now + 1)
        assert [(m.id, m.attempts) for m in leased] == [("a", 2), ("b", 1)]
        assert await driver.ack("q", ["1:a", *(m.lease_id for m in leased)]) == 2
        assert await driver.depth("q") == Depth(1, 1, 7, now + 60)


async def test_acknowledged_sends_survive_sigkill(path):
    """A killed process loses no acknowledged message and holds no lease."""
    with child(SENDER, f"sqlite:{path}", "40") as sender:
        *sent, last = sender.stdout.read().decode().split()
    assert sender.returncode == -signal.SIGKILL
    assert (len(sent), last) == (40, "leased")
    async with open_queues(f"sqlite:{path}", Clock()) as driver:
        now = Clock().now()
        leased = await driver.lease("q", 1_000, now, now + 60)
        expected = [n for n in sent for _ in range(1 if int(n) % 3 else 3)]
        assert [m.body.decode() for m in leased] == expected
        assert [m.attempts for m in leased[:6]] == [2, 2, 2, 2, 2, 1]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_commits_are_flushed_to_disk(path):
    """The file is in WAL mode and every commit is synced, so a power cut loses nothing."""
    path.parent.mkdir(parents=True)
    with open_store(str(path)) as driver:
        pragma = driver._connection.execute
        assert pragma("PRAGMA journal_mode").fetchone() == ("wal",)
        assert pragma("PRAGMA synchronous").fetchone() == (2,)


async def test_second_process_is_told_that_the_store_is_in_use(path):
    """A second process is refused with the file and the cure."""
    with child(HOLDER, f"sqlite:{path}") as holder:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(RunError) as refused:
            await opened(path)
    problem = "in use by another process; stop the edgesim that runs on this state"
    assert str(refused.value) == f"{path}: {problem}"
    await opened(path)


@pytest.mark.parametrize(
    "content", [b"this is no database " * 100, b"SQLite format 3\x00" + b"x" * 4096]
)
async def test_damaged_file_is_refused_and_left_alone(path, content):
    """A file that is no store is refused with one line and not changed."""
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(RunError) as refused:
        await opened(path)
    assert str(refused.value).startswith(f"{path}: damaged or not a queue store (")
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == content


async def test_damage_found_later_is_a_run_error(path):
    """Damage in the middle of the file is reported by the call that reads it."""
    now = Clock().now()
    async with open_queues(f"sqlite:{path}", Clock()) as driver:
        bodies = [NewMessage(str(n), b"x" * 9_000, "bytes", 1, now) for n in range(50)]
        await driver.send("q", bodies)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(size - 8192))
    with pytest.raises(RunError, match=r"queues\.db: damaged or not a queue store"):
        async with open_queues(f"sqlite:{path}", Clock()) as driver:
            await driver.lease("q", 50, now, now + 1)


@pytest.mark.parametrize(
    ("statement", "schema"), [("CREATE TABLE theirs (x)", 0), ("PRAGMA user_version = 7", 7)]
)
async def test_other_database_is_refused(path, statement, schema):
    """Another program's database, or a later edgesim's, is refused and not changed."""
    path.parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    with pytest.raises(RunError) as refused:
        await opened(path)
    assert f"not a queue store of this edgesim (schema {schema}, not 1)" in str(refused.value)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert (
            connection.execute("SELECT name FROM sqlite_master WHERE name='message'").fetchone()
            is None
        )


async def test_folder_that_cannot_be_made_is_a_run_error(tmp_path):
    """A path below a file, or to a folder, is an error of one line."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"Not a directory|File exists"):
        await opened(tmp_path / "file" / "queues.db")
    with pytest.raises(RunError, match="unable to open database file"):
        await opened(tmp_path)


async def test_full_disk_is_a_run_error_and_keeps_the_count(path):
    """A send that does not fit is refused as a whole; the store stays usable."""
    path.parent.mkdir(parents=True)
    with open_store(str(path)) as driver:
        await driver.send("q", [NewMessage("a", b"1", "text", 1, 0)])
        driver._connection.execute("PRAGMA max_page_count = 10")
        large = [NewMessage(str(n), b"x" * 9_000, "bytes", 1, 0) for n in range(9)]
        with pytest.raises(RunError, match="database or disk is full"):
            await driver.send("q", large)
        assert await driver.depth("q") == Depth(1, 1, 1, 0)
        await driver.send("q", [NewMessage("b", b"2", "text", 1, 0)])
        assert [m.id for m in await driver.peek("q", 9)] == ["a", "b"]


async def test_name_that_sqlite_takes_for_memory_is_a_file(tmp_path, monkeypatch):
    """A path named :memory: is a file, so that its messages are durable."""
    monkeypatch.chdir(tmp_path)
    await opened(":memory:")
    assert (tmp_path / ":memory:").is_file()


def _replace_by_copy(file: Path) -> None:
    copy = file.with_name("copy")
    copy.write_bytes(file.read_bytes())
    copy.rename(file)


@pytest.mark.parametrize(
    "take",
    [
        lambda file: file.unlink(),
        lambda file: file.with_name("q.db-wal").unlink(),
        lambda file: file.parent.rename(file.parent.with_name("moved")),
        _replace_by_copy,
    ],
    ids=["file", "journal", "folder", "copy"],
)
async def test_a_file_that_is_deleted_or_replaced_takes_no_messages(tmp_path, take):
    """Every send fails once the file, its journal or its folder is deleted or replaced."""
    file = tmp_path / "state" / "q.db"
    async with open_queues(f"sqlite:{file}", Clock()) as driver:
        await driver.send("q", [NewMessage("1", b"x", "text", 0, 0.0)])
        take(file)
        for number in ("2", "3"):
            with pytest.raises(RunError, match="was deleted or replaced"):
                await driver.send("q", [NewMessage(number, b"x", "text", 0, 0.0)])


async def test_after_a_failed_sync_the_file_is_not_used_again(tmp_path):
    """After a failed sync, the failed call and all later calls fail until a restart."""
    failure = sqlite3.OperationalError("disk I/O error")
    failure.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    with open_store(str(tmp_path / "q.db")) as driver:
        with pytest.raises(RunError, match="disk I/O error"), driver._file.transaction():
            raise failure
        with pytest.raises(RunError, match="disk I/O error earlier; restart edgesim"):
            await driver.send("q", [NewMessage("1", b"x", "text", 0, 0.0)])


async def test_a_store_of_an_earlier_edgesim_is_taken_over(path):
    """A store from before some columns is opened and upgraded with its messages."""
    async with open_queues(f"sqlite:{path}", Clock()) as driver:
        await driver.send("q", [NewMessage("id", b"1", "text", 1, 0.0)])
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.execute("ALTER TABLE message DROP COLUMN uncounted")
        old.execute("ALTER TABLE message DROP COLUMN trace")
    async with open_queues(f"sqlite:{path}", Clock()) as driver:
        (leased,) = await driver.lease("q", 1, 1.0, 2.0)
        await driver.release("q", [leased.lease_id], 1.0, False)
        assert [m.attempts for m in await driver.peek("q", 1)] == [0]

"""`edgesim r2` and `edgesim queue`, beside a running project and on the state of a stopped one."""

import gzip
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edgesim.clock import Clock
from edgesim.r2.bucket import Bucket
from edgesim.r2.local.file import open_r2
from edgesim.r2.notifications import Notifications
from edgesim.replay.virtual_loop import VirtualLoop, run_virtual
from tests.processes import WORKERS, dev, edgesim, on_terminal

EVENT = {"event": "kill", "player_id": "p1", "ts": 1_767_225_600_000}
INLINE = ("--isolation", "inline")
"""No test here depends on the isolation level, and without zygotes a start takes half the time."""

Command = Callable[..., str]


def commands(state: Path, project: Path = WORKERS) -> Command:
    def run(*arguments: object) -> str:
        done = edgesim(*arguments, "--project", project, "--state", state)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_objects_while_running_and_after(tmp_path):
    """ls, get, put, cp and rm have the same results on a running project and on its state."""
    run = commands(tmp_path / "state")
    source = tmp_path / "source.bin"
    source.write_bytes(bytes(range(256)) * 4_000)

    def check(prefix: str) -> None:
        run("r2", "put", "events", f"{prefix}/../a b?&=.bin", source)
        assert run("r2", "ls", "events", "--prefix", prefix).startswith(f"{prefix}/../a b?&=.bin\t")
        run("r2", "get", "events", f"{prefix}/../a b?&=.bin", "--out", tmp_path / "out.bin")
        assert (tmp_path / "out.bin").read_bytes() == source.read_bytes()
        run("r2", "cp", "events", f"{prefix}/../a b?&=.bin", "errors", f"{prefix}.bin")
        assert run("r2", "ls", "errors", "--prefix", prefix).startswith(f"{prefix}.bin\t1024000\t")
        run("r2", "rm", "errors", f"{prefix}.bin")
        run("r2", "rm", "events", f"{prefix}/../a b?&=.bin")
        assert run("r2", "ls", "events", "--prefix", prefix) == ""

    with dev(WORKERS, tmp_path / "state", "--no-reload", *INLINE) as running:
        check("running")
        assert running.stop() == 0
    check("stopped")


def test_requeue_doubles_nothing(tmp_path):
    """Objects that are notified again are inserted again, but ClickHouse has each event once."""
    run = commands(tmp_path)
    with dev(WORKERS, tmp_path, "--no-reload", *INLINE) as running:
        running.post([EVENT | {"player_id": f"p{number}"} for number in range(10)])
        running.drain()
        assert run("r2", "requeue", "events") == "objects 1, messages 1\n"
        assert run("r2", "requeue", "events", "--until", "2020-01-01") == "objects 0, messages 0\n"
        stats = running.drain()
        assert stats["queues"]["ingest"]["delivered"] == 2
        assert running.sql("SELECT count() AS n FROM events") == [{"n": 10}]


def test_requeue_goes_page_by_page(tmp_path):
    """More objects than a page: each notified once, with a progress bar on a terminal."""
    run = commands(tmp_path)
    fill(tmp_path, [f"a/{number}.json.gz" for number in range(503)])
    assert run("r2", "requeue", "events", "--prefix", "a/") == "objects 503, messages 503\n"
    assert "ingest\t503\t" in run("queue", "ls")
    shown = on_terminal("r2", "requeue", "events", "--project", WORKERS, "--state", tmp_path)
    assert "] 500 of 503 objects" in shown
    assert f"[{'#' * 30}] 503 of 503 objects" in shown
    assert "objects 503, messages 503" in shown


def fill(state: Path, keys: Sequence[str]) -> None:
    """Put objects of one byte into the bucket itself; the command would start a process for each.

    It runs in virtual time, which does not wait for the disk.
    """

    async def put(_: VirtualLoop) -> None:
        async with open_r2(f"file:{state}/r2", Clock(), state) as store:
            bucket = Bucket("events", store, Clock(), Notifications({}, Clock(), "edgesim"))
            for key in keys:
                await bucket.put(key, b"x")

    run_virtual(put)


def test_a_file_that_somebody_puts_is_ingested(tmp_path):
    """An object put by hand is notified like any other."""
    run = commands(tmp_path / "state")
    (tmp_path / "more.json.gz").write_bytes(
        gzip.compress(b'{"event":"kill","player_id":"x","ts":1767225600000,"props":{}}\n')
    )
    with dev(WORKERS, tmp_path / "state", "--no-reload", *INLINE) as running:
        run("r2", "put", "events", "by-hand.json.gz", tmp_path / "more.json.gz")
        running.drain()
        assert running.sql("SELECT player_id FROM events") == [{"player_id": "x"}]


def test_dead_letters_are_put_back(tmp_path):
    """A failed message waits in the DLQ; once the cause is fixed, redrive makes it a row."""
    project = tmp_path / "workers"
    shutil.copytree(WORKERS, project, ignore=shutil.ignore_patterns(".edgesim", "__pycache__"))
    tables = project / "insert" / "tables.py"
    right = tables.read_text()
    tables.write_text(right.replace('Table(\n        "events"', 'Table(\n        "nowhere"'))
    wrangler = project / "insert" / "wrangler.jsonc"
    wrangler.write_text(wrangler.read_text().replace('"ATTEMPTS_MAX": "9"', '"ATTEMPTS_MAX": "1"'))
    run = commands(tmp_path / "state", project)
    with dev(project, tmp_path / "state", "--no-reload", *INLINE) as running:
        running.post(EVENT)
        running.drain()
        assert "events" in run("queue", "peek", "ingest-dlq")
        [failure] = running.sql("SELECT queue, attempts, error FROM insert_failures")
        assert (failure["queue"], failure["attempts"]) == ("ingest", 1)
        assert "nowhere" in failure["error"]
        assert running.stop() == 0
    assert "ingest-dlq\t1\t" in run("queue", "ls")
    tables.write_text(right)
    assert run("queue", "redrive", "ingest-dlq", "--to", "ingest") == "moved 1\n"
    with dev(project, tmp_path / "state", "--no-reload", *INLINE) as running:
        running.drain()
        assert running.sql("SELECT count() AS n FROM events") == [{"n": 1}]
        assert running.stats()["queues"]["ingest-dlq"]["backlog"] == 0


def test_send_and_purge(tmp_path):
    """A message sent by hand can be peeked and purged."""
    run = commands(tmp_path)
    run("queue", "send", "ingest", '{"a": 1}')
    assert run("queue", "peek", "ingest").endswith('{"a": 1}\n')
    assert run("queue", "purge", "ingest") == "purged 1\n"
    assert run("queue", "peek", "ingest") == ""


def test_a_paused_queue_keeps_its_messages(tmp_path):
    """A pause lasts over a restart; a drain names the queue; after a resume the event arrives."""
    run = commands(tmp_path / "state")
    assert run("queue", "pause", "ingest") == "paused ingest\n"
    with dev(WORKERS, tmp_path / "state", "--no-reload", *INLINE) as running:
        running.post([EVENT])
        status, left = running.request("/cdn-cgi/edgesim/drain?timeout=60", b"")
        assert status == 504
        queue = json.loads(left)["left"]["queues"]["ingest"]
        assert (queue["messages"], queue["paused"]) == (1, True)
        assert run("queue", "resume", "ingest") == "resumed ingest\n"
        running.drain()
        assert running.sql("SELECT count() AS n FROM events") == [{"n": 1}]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("queue", "peek", "ingset"), "no queue 'ingset'; did you mean 'ingest'?"),
        (("queue", "redrive", "ingest-dlq", "--to", "nope"), "no queue 'nope'"),
        (("queue", "send", "ingest", "{broken"), "not JSON"),
        (("r2", "ls", "evnts"), "no bucket 'evnts'; did you mean 'events'?"),
        (("r2", "put", "typo", "k", __file__), "no bucket 'typo'"),
        (("r2", "get", "typo", "k"), "no bucket 'typo'"),
        (("r2", "rm", "events", "nothing"), "no object 'nothing'"),
        (("r2", "get", "events", "nothing"), "no object 'nothing'"),
        (("r2", "put", "events", "k", "/nowhere"), "/nowhere"),
        (("r2", "requeue", "events", "--since", "soon"), "not an ISO date"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, arguments, expected):
    """The error for an unknown name suggests the known one; exit 2."""
    failed = edgesim(*arguments, "--project", WORKERS, "--state", tmp_path)
    assert failed.returncode == 2, failed.stderr
    assert expected in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1


def test_listings_as_json_and_as_tables(tmp_path):
    """Listings are JSON with --json, tables with column heads on a terminal, else tab-separated."""
    run = commands(tmp_path)
    run("queue", "send", "ingest-dlq", '{"n": 1}')
    source = tmp_path / "a.txt"
    source.write_text("abc")
    run("r2", "put", "events", "a.txt", source)
    (queue,) = [each for each in json.loads(run("queue", "ls", "--json")) if each["backlog"]]
    assert (queue["queue"], queue["backlog"]) == ("ingest-dlq", 1)
    (message,) = json.loads(run("queue", "peek", "ingest-dlq", "--json"))
    assert message["body"] == {"n": 1}
    (found,) = json.loads(run("r2", "ls", "events", "--json"))
    assert (found["key"], found["size"]) == ("a.txt", 3)
    shown = on_terminal("r2", "ls", "events", "--project", WORKERS, "--state", tmp_path)
    assert [line.split()[:2] for line in shown.splitlines()] == [["key", "size"], ["a.txt", "3"]]
    assert (
        on_terminal("r2", "ls", "errors", "--project", WORKERS, "--state", tmp_path) == "none\r\n"
    )

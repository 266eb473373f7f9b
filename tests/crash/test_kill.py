"""Kill -9 at random moments under load: what was promised is kept, and nothing is there twice.

``make crash`` kills 50 times; without it a few kills stand for them.  SEED repeats a run's moments.
"""

import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import anyio
import pytest

from edgesim.backends import open_backends
from edgesim.clock import Clock
from edgesim.config import Environment, load_project
from edgesim.config.project import Overrides
from edgesim.model import read_all
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.r2.notifications import Notifications
from tests.processes import WORKERS, dev

KILLS = int(os.environ.get("KILLS", "5"))
SEED = int(os.environ.get("SEED", "1"))
SENDERS = 4
EVENT = {"event": "kill", "ts": 1_767_225_600_000, "props": {"damage": 7}}


class Load:
    """Clients that post numbered events, each number once, and note what was answered."""

    def __init__(self) -> None:
        self.sent = 0
        self.acknowledged: set[str] = set()
        self._lock = threading.Lock()

    def post(self, url: str, stop: threading.Event) -> None:
        """Post until told to stop, or until the server is gone."""
        while not stop.is_set():
            names = self._next_names(random.randint(1, 20))
            body = json.dumps([EVENT | {"player_id": name} for name in names]).encode()
            request = urllib.request.Request(url, body, {"Host": "large-payload.localhost"})
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    assert answer.status == 200
            except OSError:
                return
            with self._lock:
                self.acknowledged.update(names)

    def _next_names(self, count: int) -> list[str]:
        with self._lock:
            first = self.sent
            self.sent += count
        return [f"n{number}" for number in range(first, first + count)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The repository's own Workers, with windows short enough that every stage is always busy."""
    copy = tmp_path / "workers"
    shutil.copytree(WORKERS, copy, ignore=shutil.ignore_patterns(".edgesim", "__pycache__"))
    account = copy / "edgesim.toml"
    account.write_text(account.read_text().replace("max_seconds = 90", "max_seconds = 0.3"))
    return copy


@pytest.mark.timeout(60 + 20 * KILLS)
def test_killed_at_random_moments(project, tmp_path, capsys):
    """What send returned for is in one object and one row; stores are whole; nothing is stuck."""
    state = tmp_path / "state"
    moments = random.Random(SEED)
    load = Load()
    for number in range(KILLS):
        if number % 5 == 4:
            kill_while_starting(project, state, moments.uniform(0.1, 1.5))
        else:
            kill_under_load(project, state, load, moments.uniform(0.05, 3.0))
    with dev(project, state, "--no-reload", "--quiet") as running:
        stats = running.drain()
        rows = Counter(row["player_id"] for row in running.sql("SELECT player_id FROM events"))
        failures = running.sql("SELECT count() AS n FROM insert_failures")
        assert running.stop() == 0
    objects = anyio.run(records_by_object, project, state)
    stored = Counter(name for names in objects.values() for name in names)
    with capsys.disabled():
        print(
            f"\n{KILLS} kills, seed {SEED}: {load.sent} events sent, "
            f"{len(load.acknowledged)} acknowledged, {len(stored)} stored in {len(objects)} "
            f"objects, {len(rows)} rows; lost {len(load.acknowledged - stored.keys())}, "
            f"twice in objects {sum(n > 1 for n in stored.values())}, "
            f"twice in rows {sum(n > 1 for n in rows.values())}"
        )
    assert load.acknowledged
    assert load.acknowledged <= stored.keys()
    assert set(stored.values()) == {1}
    assert rows == stored
    assert failures == [{"n": 0}]
    assert [name for name, each in stats["queues"].items() if each["backlog"]] == []
    for database in state.rglob("*.db"):
        with sqlite3.connect(database) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def kill_under_load(project: Path, state: Path, load: Load, seconds: float) -> None:
    """Serve, post from several clients, and kill -9 after so long."""
    stop = threading.Event()
    with dev(project, state, "--no-reload", "--quiet") as running:
        clients = [
            threading.Thread(target=load.post, args=(running.url, stop), daemon=True)
            for _ in range(SENDERS)
        ]
        for client in clients:
            client.start()
        time.sleep(seconds)  # the moment is what is drawn: there is nothing to wait for
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(10)
        stop.set()
        for client in clients:
            client.join(30)


def kill_while_starting(project: Path, state: Path, seconds: float) -> None:
    """Kill -9 while the state is being recovered, whether or not it is ready by then."""
    command = [sys.executable, "-m", "edgesim.cli", "dev", project, "--port", "0", "--state", state]
    with subprocess.Popen(
        [*map(str, command), "--no-reload", "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        time.sleep(seconds)  # as above
        process.kill()


async def records_by_object(project: Path, state: Path) -> dict[str, list[str]]:
    """Key -> names of the records of every object; each is whole and has the bytes it says."""
    loaded = load_project(project, Overrides(state=state))
    clock = Clock()
    found = {}
    async with open_backends(loaded, Environment(), clock) as backends:
        bucket = Bucket("events", backends.r2, clock, Notifications({}, clock, "account"))
        cursor = None
        while True:
            page = await bucket.list(cursor=cursor)
            for each in page.objects:
                stored = await bucket.get(each.key)
                assert isinstance(stored, R2ObjectBody)
                data = await read_all(stored.body)
                assert hashlib.md5(data).hexdigest() == each.etag
                lines = gzip.decompress(data).splitlines()
                found[each.key] = [json.loads(line)["player_id"] for line in lines]
            if not page.truncated:
                return found
            cursor = page.cursor

"""kill -9 at random moments: every answered record is in each sink once, whatever its form."""

import gzip
import json
import os
import random
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.processes import Dev, dev, edgesim
from tests.simulated import write_worker

KILLS = int(os.environ.get("KILLS", "4"))
SENDERS = 4
ACCOUNT = """
workers = ["main"]
[streams.clicks]
schema = "clicks.json"
[sinks.whole]
bucket = "whole"
format = "json"
compression = "gzip"
roll_interval = 10
roll_size = 0.002
[sinks.even]
bucket = "even"
format = "json"
roll_interval = 10
roll_size = 0.01
[sinks.fitting]
bucket = "fitting"
format = "json"
roll_interval = 10
roll_size = 0.01
[pipelines.split]
sql = '''
INSERT INTO whole SELECT * FROM clicks;
INSERT INTO even SELECT n FROM clicks WHERE n % 2 = 0;
INSERT INTO fitting SELECT n, 100 / (n % 7) AS x FROM clicks'''
"""
SCHEMA = {
    "fields": [
        {"name": "n", "type": "int64", "required": True},
        {"name": "text", "type": "string"},
    ]
}
MODULE = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("OK")
"""


class Senders:
    """Threads that send numbered records until they are stopped; a record is sent once."""

    def __init__(self) -> None:
        self.answered: set[int] = set()
        self.sent = 0
        self._next = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    def start(self, server: Dev) -> None:
        self._stopping.clear()
        self._threads = [
            threading.Thread(target=self._send, args=(server,)) for _ in range(SENDERS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _send(self, server: Dev) -> None:
        while not self._stopping.is_set():
            with self._next:
                number = self.sent
                self.sent += 1
            body = json.dumps([{"n": number, "text": "x" * 50}]).encode()
            try:
                status, _ = server.request("/cdn-cgi/edgesim/ingest/clicks", body)
            except OSError:
                return  # killed
            if status == 200:
                self.answered.add(number)


def rows_in(project: Path, state: Path, bucket: str) -> Counter[int]:
    """Count each number in the files of a bucket."""
    found: Counter[int] = Counter()
    where = ("--project", project, "--state", state)
    listed = edgesim("r2", "ls", bucket, *where)
    assert listed.returncode == 0, listed.stderr
    out = state.parent / "object"
    for line in listed.stdout.splitlines():
        key = line.split()[0]
        done = edgesim("r2", "get", bucket, key, "--out", out, *where)
        assert done.returncode == 0, done.stderr
        data = gzip.decompress(out.read_bytes()) if key.endswith(".gz") else out.read_bytes()
        found.update(json.loads(row)["n"] for row in data.splitlines())
    return found


@pytest.mark.timeout(120 + 20 * KILLS)
def test_killed_at_random_moments(tmp_path):
    """Answered records are in each sink exactly once; others at most once."""
    project, state = tmp_path / "project", tmp_path / "state"
    project.mkdir()
    (project / "edgesim.toml").write_text(ACCOUNT)
    (project / "clicks.json").write_text(json.dumps(SCHEMA))
    write_worker(project, "main", MODULE)
    chance = random.Random(int(os.environ.get("SEED", "1")))
    senders = Senders()
    for _ in range(KILLS):
        with dev(project, state, "--no-reload") as running:
            senders.start(running)
            moment = threading.Event()
            moment.wait(chance.uniform(0.05, 1.0))
            os.kill(running.process.pid, signal.SIGKILL)
            running.process.wait(60)
            senders.stop()
    with dev(project, state, "--no-reload") as running:
        running.drain()
        assert running.stop() == 0
    assert len(senders.answered) > KILLS
    for bucket, expected in (
        ("whole", senders.answered),
        ("even", {number for number in senders.answered if number % 2 == 0}),
        ("fitting", {number for number in senders.answered if number % 7}),  # else it fails
    ):
        rows = rows_in(project, state, bucket)
        assert expected - rows.keys() == set()
        assert {number: count for number, count in rows.items() if count > 1} == {}

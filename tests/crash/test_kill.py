"""SIGKILL at random moments under load: nothing acknowledged is lost, nothing is stored twice.

``make crash`` kills 50 times; by default it is 5 times.  SEED repeats a run's moments.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import anyio
import pytest

from tests.crash.crash_world import Load, check_databases, copy_of_workers, records_by_object
from tests.processes import dev

KILLS = int(os.environ.get("KILLS", "5"))
SEED = int(os.environ.get("SEED", "1"))
SENDERS = 4


@pytest.mark.timeout(60 + 20 * KILLS)
def test_killed_at_random_moments(tmp_path, capsys):
    """Acknowledged events are in one object and one row; databases are intact; queues are empty."""
    project = copy_of_workers(tmp_path, window_seconds=0.3)
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
    assert rows == stored  # so every object was notified, and every message led to its insert
    assert failures == [{"n": 0}]
    assert [name for name, each in stats["queues"].items() if each["backlog"]] == []
    check_databases(state)


def kill_under_load(project: Path, state: Path, load: Load, seconds: float) -> None:
    """Serve, post from several clients, and send SIGKILL after ``seconds``."""
    stop = threading.Event()
    with dev(project, state, "--no-reload", "--quiet") as running:
        clients = [
            threading.Thread(target=load.post, args=(running.url, stop), daemon=True)
            for _ in range(SENDERS)
        ]
        for client in clients:
            client.start()
        time.sleep(seconds)  # a random moment: no condition to wait for
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(60)
        stop.set()
        for client in clients:
            client.join(60)


def kill_while_starting(project: Path, state: Path, seconds: float) -> None:
    """Send SIGKILL while the state is being recovered, ready or not."""
    command = [sys.executable, "-m", "edgesim.cli", "dev", project, "--port", "0", "--state", state]
    with subprocess.Popen(
        [*map(str, command), "--no-reload", "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        time.sleep(seconds)  # as above
        process.kill()

"""kill -9 at random moments: every answered record is in the Iceberg table exactly once."""

import json
import os
import random
import signal
import threading
from collections import Counter

import pytest

from tests.crash.test_streams import KILLS, MODULE, SCHEMA, Senders
from tests.iceberg_client import rows_of_table
from tests.processes import dev
from tests.simulated import write_worker

ACCOUNT = """
workers = ["main"]
[streams.clicks]
schema = "clicks.json"
[sinks.even]
type = "r2-data-catalog"
bucket = "lake"
namespace = "default"
table = "clicks"
roll_interval = 60
roll_size = 0.005
[pipelines.flow]
sql = "INSERT INTO even SELECT n FROM clicks WHERE n % 2 = 0"
"""


@pytest.mark.timeout(240 + 40 * KILLS)
def test_killed_at_random_moments(tmp_path):
    """Answered records are in the table exactly once; others at most once."""
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
            moment.wait(chance.uniform(0.05, 3.0))
            os.kill(running.process.pid, signal.SIGKILL)
            running.process.wait(30)
            senders.stop()
    with dev(project, state, "--no-reload") as running:
        running.drain()
        rows = Counter(row["n"] for row in rows_of_table(running.url, "lake", "default.clicks"))
        files = running.stats()["r2"]["lake"]["objects"]
        assert running.stop() == 0
    assert len(senders.answered) > KILLS
    assert files > KILLS
    expected = {number for number in senders.answered if number % 2 == 0}
    assert expected - rows.keys() == set()
    assert {number: count for number, count in rows.items() if count > 1} == {}

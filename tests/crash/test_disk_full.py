"""A full disk: the sender receives an error, and no acknowledged event is lost.

A file size limit set by the kernel (RLIMIT_FSIZE) stands for the full disk: a write beyond it fails
in the same way, also in the middle of a frame.
"""

import resource
from collections import Counter

import anyio

from tests.crash.crash_world import Load, check_databases, copy_of_workers, records_by_object
from tests.processes import dev

FULL_AT_BYTES = 300_000


def test_a_full_disk_refuses_the_sender_and_loses_nothing(tmp_path):
    """Sends fail while the disk is full and succeed afterwards; acknowledged events are rows."""
    project = copy_of_workers(tmp_path, window_seconds=90)
    state = tmp_path / "state"
    load = Load()
    with dev(project, state, "--no-reload", "--quiet") as running:
        pid = running.process.pid
        unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (FULL_AT_BYTES, unlimited[1]))
        statuses = [load.post_once(running.url, 10, padding=700) for _ in range(60)]
        assert statuses[0] == 200
        assert set(statuses[-10:]) == {500}
        refused = load.sent - len(load.acknowledged)
        assert running.stats()["pipelines"]["events"]["records"] == len(load.acknowledged)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
        assert load.post_once(running.url, 10) == 200
        running.drain()
        rows = Counter(row["player_id"] for row in running.sql("SELECT player_id FROM events"))
        assert running.stop() == 0
    assert refused > 0
    assert rows == dict.fromkeys(load.acknowledged, 1)
    objects = anyio.run(records_by_object, project, state)
    assert sorted(name for names in objects.values() for name in names) == sorted(rows)
    check_databases(state)

"""SIGKILL under the pipeline in TypeScript: every posted event is in ClickHouse exactly once.

Clients repeat a request that got no reply; each attempt marks its events.  ``make crash`` posts
10,000 events across 10 kills; by default it is 1,000 across 2.  SEED repeats a run's moments.
"""

import json
import os
import random
import shutil
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from tests.crash.crash_world import EVENT, check_databases
from tests.javascript_world import programs
from tests.processes import ROOT, Dev, dev

POSTED = int(os.environ.get("POSTED", "1000"))
KILLS = max(2, POSTED // 1000)
SEED = int(os.environ.get("SEED", "1"))
CLIENTS = 4
REQUEST_EVENTS_MAX = 5
PROGRESS_SECONDS = 120.0


class Clients:
    """Threads that post ``POSTED`` events by the large-payload Worker, whose 200 means "safe"."""

    def __init__(self) -> None:
        self.acknowledged: list[tuple[str, str]] = []
        """(event, attempt) of every event in an answered request."""
        self.repeated = 0
        self.refused: list[int] = []
        """Statuses other than 200."""
        self._moved = threading.Condition()
        self._next = 0
        self._url: str | None = None
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def serve_at(self, server: Dev | None) -> None:
        """Post to this server from now on; None: wait for the next."""
        with self._moved:
            self._url = None if server is None else server.url
            self._moved.notify_all()

    def wait_acknowledged(self, count: int) -> None:
        """Wait until ``count`` events are acknowledged."""
        with self._moved:
            assert self._moved.wait_for(
                lambda: len(self.acknowledged) >= count, PROGRESS_SECONDS
            ), f"{len(self.acknowledged)} of {count} events acknowledged"

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _work(self) -> None:
        sizes = random.Random(SEED)
        while names := self._take(sizes.randint(1, REQUEST_EVENTS_MAX)):
            attempt = 1
            while not self._post(names, f"attempt {attempt}"):
                attempt += 1

    def _take(self, count: int) -> list[str]:
        with self._moved:
            first, self._next = self._next, min(POSTED, self._next + count)
            return [f"n{number}" for number in range(first, self._next)]

    def _post(self, names: list[str], attempt: str) -> bool:
        """Post the events once; False if there was no reply."""
        with self._moved:
            assert self._moved.wait_for(lambda: self._url is not None, PROGRESS_SECONDS)
            url = self._url
        assert url is not None
        body = json.dumps([EVENT | {"player_id": name, "build": attempt} for name in names])
        headers = {"Host": "large-payload.localhost"}
        request = urllib.request.Request(url, body.encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.status == 200
        except urllib.error.HTTPError as error:
            self.refused.append(error.code)
            return False
        except OSError:  # killed meanwhile
            with self._moved:
                self.repeated += 1
                if self._url == url:
                    self._moved.wait_for(lambda: self._url != url, PROGRESS_SECONDS)
            return False
        with self._moved:
            self.acknowledged += [(name, attempt) for name in names]
            self._moved.notify_all()
        return True


def copy_of_example(folder: Path) -> Path:
    """Copy the pipeline in TypeScript, with windows of 0.3 s."""
    copy = folder / "examples" / "javascript"
    ignored = shutil.ignore_patterns(".edgesim", "node_modules")
    shutil.copytree(ROOT / "examples" / "javascript", copy, ignore=ignored)
    account = copy / "edgesim.toml"
    text = account.read_text().replace("max_seconds = 90", "max_seconds = 0.3")
    schema = ROOT / "workers" / "insert" / "schema.sql"
    account.write_text(text.replace("../../workers/insert/schema.sql", str(schema)))
    return copy


@pytest.mark.parametrize("isolation", ["process", "warm"])
@pytest.mark.timeout(120 + 40 * KILLS)
def test_killed_while_clients_post(tmp_path, capsys, monkeypatch, isolation):
    """All events are rows, none twice; what was answered is there as it was answered."""
    found = programs()
    monkeypatch.setenv("EDGESIM_WORKERD", str(found.workerd))
    monkeypatch.setenv("EDGESIM_ESBUILD", str(found.esbuild))
    project, state = copy_of_example(tmp_path), tmp_path / "state"
    options = ("--no-reload", "--quiet", "--isolation", isolation)
    chance = random.Random(SEED)
    clients = Clients()
    for number in range(KILLS):
        with dev(project, state, *options) as running:
            clients.serve_at(running)
            clients.wait_acknowledged(POSTED * (number + 1) // (KILLS + 1))
            time.sleep(chance.uniform(0, 0.3))  # a random moment: no condition to wait for
            running.process.send_signal(signal.SIGKILL)
            running.process.wait(30)
            clients.serve_at(None)
    with dev(project, state, *options) as running:
        clients.serve_at(running)
        clients.wait_acknowledged(POSTED)
        clients.join()
        stats = running.drain()
        rows = Counter(
            (row["player_id"], row["build"])
            for row in running.sql("SELECT player_id, build FROM events")
        )
        failures = running.sql("SELECT count() AS n FROM insert_failures")
        assert running.stop() == 0
    unique = {name for name, _ in rows}
    acknowledged = Counter(clients.acknowledged)
    with capsys.disabled():
        print(
            f"\n{KILLS} kills, seed {SEED}, {isolation}: {POSTED} events, {clients.repeated} "
            f"requests repeated, {len(unique)} unique in {rows.total()} rows; "
            f"lost {len(acknowledged - rows)}, twice {sum(n > 1 for n in rows.values())}"
        )
    assert clients.refused == []
    assert acknowledged.total() == POSTED
    assert unique == {f"n{number}" for number in range(POSTED)}
    assert not acknowledged - rows
    assert set(rows.values()) == {1}  # a repeated request is another attempt
    assert failures == [{"n": 0}]
    assert [name for name, each in stats["queues"].items() if each["backlog"]] == []
    check_databases(state)

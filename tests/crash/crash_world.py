"""Shared helpers of the crash tests: a copy of the Workers, a load, readers of the state."""

import gzip
import hashlib
import json
import random
import shutil
import sqlite3
import threading
import urllib.error
import urllib.request
from pathlib import Path

from edgesim.backends import open_backends
from edgesim.clock import Clock
from edgesim.config import Environment, load_project
from edgesim.config.project import Overrides
from edgesim.model import read_all
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.r2.notifications import Notifications
from tests.processes import WORKERS

EVENT = {"event": "kill", "ts": 1_767_225_600_000, "props": {"damage": 7}}


def copy_of_workers(folder: Path, window_seconds: float) -> Path:
    """Copy the repository's Workers, with windows of that length."""
    copy = folder / "workers"
    shutil.copytree(WORKERS, copy, ignore=shutil.ignore_patterns(".edgesim", "__pycache__"))
    account = copy / "edgesim.toml"
    shorter = account.read_text().replace("max_seconds = 90", f"max_seconds = {window_seconds}")
    account.write_text(shorter)
    return copy


class Load:
    """Clients that post numbered events, each number once, and record which were acknowledged.

    They post to the large-payload Worker, which responds 200 when ``PIPELINE.send`` has returned.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.acknowledged: set[str] = set()
        self._lock = threading.Lock()

    def post(self, url: str, stop: threading.Event) -> None:
        """Post until ``stop`` is set or the server is gone."""
        while not stop.is_set():
            try:
                self.post_once(url, random.randint(1, 20))
            except OSError:
                return

    def post_once(self, url: str, count: int, padding: int = 0) -> int:
        """Post ``count`` events in one request and return the status."""
        names = self._next_names(count)
        events = [EVENT | {"player_id": name, "build": "x" * padding} for name in names]
        headers = {"Host": "large-payload.localhost"}
        request = urllib.request.Request(url, json.dumps(events).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status = int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        with self._lock:
            self.acknowledged.update(names)
        return status

    def _next_names(self, count: int) -> list[str]:
        with self._lock:
            first = self.sent
            self.sent += count
        return [f"n{number}" for number in range(first, first + count)]


async def records_by_object(project: Path, state: Path) -> dict[str, list[str]]:
    """Return object key -> names of its records; check each object's etag against its bytes."""
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


def check_databases(state: Path) -> None:
    """Assert that every SQLite file of the state passes its integrity check."""
    databases = [*state.rglob("*.db")]
    assert databases
    for database in databases:
        with sqlite3.connect(database) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

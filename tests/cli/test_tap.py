"""`edgesim tap`: records of a running project as they pass one place."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, WORKERS, Dev, dev, edgesim

EVENT = {"event": "kill", "player_id": "player-7731", "ts": 1_767_225_600_000}
SECONDS = 60


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tap") / "state"


@pytest.fixture(scope="module")
def running(state) -> Iterator[Dev]:
    with dev(WORKERS, state, "--no-reload") as running:
        yield running


@contextmanager
def tapping(state: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``edgesim tap`` and wait until it watches."""
    command = [sys.executable, "-m", "edgesim.cli", "tap", *options, "--project", str(WORKERS)]
    with subprocess.Popen(
        [*command, "--state", str(state)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "watching" in process.stderr.readline()
        try:
            yield process
        finally:
            process.kill()


def next_record(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())["record"]


def test_one_event_at_every_place(running, state):
    """The same event passes the log, the tail, the pipeline, the bucket, the queue, the insert."""
    places = ("receiver", "tail", "pipelines.events", "r2.events", "queues.ingest", "clickhouse")
    running.drain()  # events of other tests
    with (
        tapping(state, places[0], "--json") as log,
        tapping(state, places[1], "--json") as tail,
        tapping(state, places[2], "--json") as pipeline,
        tapping(state, places[3], "--json") as bucket,
        tapping(state, places[4], "--json") as queue,
        tapping(state, places[5], "--json") as insert,
    ):
        running.post([EVENT])
        running.drain()
        assert next_record(log)["message"][0].startswith('PIPE_ME {"event":"kill"')
        assert next_record(tail)["scriptName"] == "receiver"
        assert next_record(pipeline)["player_id"] == "player-7731"
        written = next_record(bucket)
        assert written["action"] == "PutObject"
        sent, delivered = next_record(queue), next_record(queue)
        assert (sent["event"], delivered["event"]) == ("sent", "delivered")
        assert sent["body"]["object"]["key"] == written["key"]
        assert (delivered["id"], delivered["attempts"]) == (sent["id"], 1)
        inserted = next_record(insert)
        assert inserted["worker"] == "insert"
        assert inserted["sql"].startswith("INSERT INTO events")
        assert "player-7731" in inserted["data"][0]  # it came packed with gzip


def test_more_than_the_rate_is_counted(running, state):
    """Records beyond --rate are left out and counted; the others are shown at once."""
    with tapping(state, "pipelines.events", "--json", "--rate", "3") as process:
        running.post([EVENT] * 50)
        assert [next_record(process)["event"] for _ in range(3)] == ["kill"] * 3
        assert process.stderr is not None
        line = process.stderr.readline()
        count = re.fullmatch(r"edgesim: (\d+) records were not shown; --rate allows more\n", line)
        assert count is not None, line
        assert 1 <= int(count[1]) <= 47  # on a slow machine the records do not pass all at once
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0


def test_values_of_events_do_not_steer_the_terminal(running, state):
    """Control characters of an event are escaped in the pretty form, one line a record."""
    with tapping(state, "pipelines.events", "--count", "1") as process:
        running.post([EVENT | {"player_id": "\x1b[2Jx\nrecord"}])
        assert process.wait(SECONDS) == 0
        assert process.stdout is not None
        (line,) = process.stdout.readlines()
        assert "\x1b" not in line


def test_it_ends_with_its_reader(running, state):
    """A reader that leaves ends the command, also if no record passes."""
    with tapping(state, "queues.ingest") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(SECONDS) == -signal.SIGPIPE


def test_it_ends_with_the_project(tmp_path):
    """The end of the project ends the command, and does not wait for it."""
    with dev(WORKERS, tmp_path, "--no-reload") as running, tapping(tmp_path, "tail") as process:
        assert running.stop() == 0
        assert process.wait(SECONDS) == 0


def test_refusals(running, state, tmp_path):
    """An unknown place, a bad rate and a project that does not run are usage errors."""
    project = ("--project", WORKERS, "--state", state)
    done = edgesim("tap", "pipelines.event", *project)
    assert (done.returncode, done.stderr) == (
        2,
        "edgesim: there is no place 'pipelines.event' to watch; did you mean 'pipelines.events'?\n",
    )
    done = edgesim("tap", "tail", "--rate", "0", *project)
    assert done.returncode == 2
    assert "rate must be a number from 1 to 1000, not '0'" in done.stderr
    done = edgesim("tap", "tail", "--count", "0", *project)
    assert (done.returncode, done.stderr) == (2, "edgesim: --count must be 1 or more\n")
    done = edgesim("tap", "tail", "--project", WORKERS, "--state", tmp_path)
    assert done.returncode == 2
    assert "start it with `edgesim dev`" in done.stderr

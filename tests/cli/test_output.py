"""A command's output whose reader closes or does not read it, or whose disk is full."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import ROOT, WORKERS, Dev

COMMAND = (sys.executable, "-m", "edgesim.cli")
EVENT = {"event": "login", "player_id": "p1", "ts": 1767225600000}
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@contextmanager
def serving(state: Path, stderr: int, isolation: str, command: str = "dev") -> Iterator[Dev]:
    """Run the platform with ``stderr`` as its log; its standard output is closed once ready."""
    words = (*COMMAND, command, WORKERS, "--port", 0, "--state", state, "--isolation", isolation)
    process = subprocess.Popen(
        [*map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True, env=BUFFERED
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("Ready on "), line
        process.stdout.close()
        yield Dev(process, line.removeprefix("Ready on ").strip(), [])
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize(("command", "isolation"), [("dev", "inline"), ("serve", "warm")])
def test_a_log_reader_that_goes_away_changes_nothing(tmp_path, command, isolation):
    """Requests are served, events arrive, dropped lines are counted, SIGTERM exits with 0."""
    ours, theirs = os.pipe()
    with serving(tmp_path / "state", theirs, isolation, command) as running:
        os.close(theirs)
        os.read(ours, 1)
        os.close(ours)
        assert [running.post(EVENT) for _ in range(5)] == [200] * 5
        assert running.post({"event": 7}) == 400
        stats = running.drain()
        assert stats["tail"]["lost"] == 0
        assert stats["log"]["dropped"] > 0
        assert running.sql("SELECT count() FROM events") == [{"count()": 5}]
        assert running.stop() == 0


def test_a_full_log_disk_changes_nothing(tmp_path):
    """The same with a log that can be opened but not written."""
    with (
        Path("/dev/full").open("wb") as full,
        serving(tmp_path / "state", full.fileno(), "inline") as running,
    ):
        assert running.post(EVENT) == 200
        assert running.stats()["log"]["dropped"] > 0
        assert running.stop() == 0


def test_a_log_reader_that_does_not_read_holds_nothing_up(tmp_path):
    """With a full pipe requests are served, and shutdown waits only briefly."""
    ours, theirs = os.pipe()
    while True:  # full before the first line
        os.set_blocking(theirs, False)
        try:
            os.write(theirs, b"\n" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(theirs, True)
    with serving(tmp_path / "state", theirs, "inline") as running:
        assert [running.post(EVENT) for _ in range(5)] == [200] * 5
        assert running.stop() == 0
    os.close(ours)
    os.close(theirs)


def test_closed_standard_streams_are_not_reused(tmp_path):
    """A platform started without standard error serves; no file of its own gets descriptor 2."""
    script = 'exec 2>&-; exec "$@"'
    words = (*COMMAND, "dev", WORKERS, "--port", 0, "--state", tmp_path / "state")
    process = subprocess.Popen(
        ["sh", "-c", script, "sh", *map(str, words), "--isolation", "inline"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("Ready on ").strip()
        assert Path(f"/proc/{process.pid}/fd/2").readlink() == Path(os.devnull)
        running = Dev(process, url, [])
        assert running.post(EVENT) == 200
        assert running.stop() == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "words",
    [
        ("sql", "SELECT number FROM numbers(200000)"),
        ("cost",),
        ("--help",),
        ("replay", "--help"),
    ],
)
def test_a_command_whose_reader_goes_away_ends_without_a_word(tmp_path, words):
    """A closed pipe ends a command by SIGPIPE, or with its own code if all output was written."""
    state = ("--state", tmp_path / "state") if words[0] == "sql" else ()
    project = ("--project", WORKERS) if words[0] in {"sql", "cost"} else ()
    ours, theirs = os.pipe()
    os.close(ours)
    process = subprocess.Popen(
        [*COMMAND, *map(str, (*words, *project, *state))],
        cwd=ROOT,
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        env=BUFFERED,
    )
    os.close(theirs)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGPIPE
    assert said == ""


@pytest.mark.parametrize("words", [["--help"], ["queue", "ls", "--project", WORKERS]])
def test_output_that_cannot_be_written_is_a_failure(words, tmp_path):
    """A full disk at standard output is one line and exit code 3."""
    state = [] if words == ["--help"] else ["--state", tmp_path]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, *words, *state],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=BUFFERED,
            check=False,
        )
    assert done.returncode == 3
    assert done.stderr == "edgesim: cannot write to standard output: No space left on device\n"

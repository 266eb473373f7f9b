"""Commands beside a running project refuse flags for other stores than those it has open."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from edgesim.cli import main
from tests.processes import dev, edgesim
from tests.simulated import write_worker

SOURCE = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("ok")
"""
COMMANDS = [
    ("queue", "ls"),
    ("queue", "purge", "jobs"),
    ("queue", "peek", "jobs"),
    ("queue", "send", "jobs", "1"),
    ("queue", "redrive", "jobs", "--to", "more"),
    ("r2", "ls", "things"),
    ("r2", "get", "things", "k"),
    ("r2", "put", "things", "k", __file__),
    ("r2", "cp", "things", "k", "things", "l"),
    ("r2", "rm", "things", "k"),
    ("r2", "requeue", "things"),
    ("sql", "SELECT 1"),
    ("cost", "--used"),
]
ELSEWHERE = {
    "queues": "nats://me:hush@production.example:4222/shop",
    "r2": "s3://production.example?secure=true",
    "clickhouse": "clickhouse://me:hush@production.example:9000/events",
}


class Running(NamedTuple):
    """A running project: its address, its folder, and the URL of its queues."""

    url: str
    folder: Path
    queues: str


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A running project with its own stores; a flag names its queues' store."""
    folder = tmp_path_factory.mktemp("project")
    write_worker(folder, "main", SOURCE)
    (folder / "edgesim.toml").write_text(
        'workers = ["main"]\n[queues.jobs]\n[queues.more]\n[r2.things]\n'
    )
    queues = f"sqlite:{folder}/queues/here.db"
    arguments = ("--no-reload", "--isolation", "inline", "--queues", queues)
    with dev(folder, folder / "state", *arguments) as running:
        yield Running(running.url, folder, queues)


@pytest.fixture
def command(server, capsys):
    """Run one command on the project's state and return exit code, output, errors."""

    def run(*arguments):
        where = ("--project", server.folder, "--state", server.folder / "state")
        code = main([*map(str, (*arguments, *where))])
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_flag_for_other_stores_is_refused(server, command, words, name):
    """Every command that uses the running project: exit 2, one line, no secret, no effect."""
    code, out, errors = command(*words, f"--{name}", ELSEWHERE[name])
    assert (code, out, len(errors.splitlines())) == (2, "", 1)
    place = ELSEWHERE[name].replace("me:hush@", "")
    assert f"--{name} is {place}, but the project that runs at {server.url}" in errors
    assert "hush" not in errors


def test_a_variable_for_other_stores_is_refused(server, command, monkeypatch):
    """The error names EDGESIM_QUEUES as the reason, unless a flag overrides it."""
    monkeypatch.setenv("EDGESIM_QUEUES", "nats://production.example/shop")
    code, _, errors = command("queue", "purge", "jobs")
    assert code == 2
    assert "edgesim: EDGESIM_QUEUES is nats://production.example/shop, but" in errors
    code, _, errors = command("queue", "ls", "--queues", server.queues)
    assert (code, errors) == (0, "")


def test_the_same_stores_in_other_words_are_fine(server, command):
    """The running project's own URL in another spelling is accepted, and so is no flag."""
    other_words = f"sqlite:{server.folder}/state/../queues/here.db"
    for flags in ((), ("--queues", other_words), ("--r2", "")):
        assert command("queue", "send", "jobs", "1", *flags)[0] == 0
    assert command("queue", "purge", "jobs", "--queues", server.queues)[1] == "purged 3\n"


def test_what_runs_is_written_down_without_secrets(server):
    """The owner file lists the URLs of the open stores."""
    owner = json.loads((server.folder / "state/owner.json").read_text())
    assert owner["backends"]["queues"] == server.queues
    assert owner["backends"].keys() == {"r2", "queues", "kv", "clickhouse"}


def test_another_state_is_another_matter(server, tmp_path):
    """With another state the command opens the store that the flag names."""
    done = edgesim(
        *("queue", "ls", "--project", server.folder, "--state", tmp_path / "state"),
        *("--queues", f"sqlite:{tmp_path}/other.db"),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "other.db").exists()

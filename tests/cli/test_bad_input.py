"""Bad input of every kind: one line that names the file or option and the cure, and exit code 2."""

import json
import re
from pathlib import Path

import pytest

from edgesim.cli import main
from edgesim.config import load_project
from edgesim.errors import ConfigError

MODULE = """
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("ok")

    async def queue(self, batch, env=None, ctx=None):
        pass
"""
WRANGLER = {
    "name": "w",
    "main": "w.py",
    "compatibility_date": "2026-05-01",
    "compatibility_flags": ["python_workers"],
    "queues": {
        "producers": [{"binding": "Q", "queue": "jobs"}],
        "consumers": [{"queue": "jobs", "max_batch_size": 10}],
    },
    "r2_buckets": [{"binding": "B", "bucket_name": "events"}],
}
ACCOUNT = """
workers = ["w"]
[pipelines.events]
bucket = "events"
[backends]
queues = "sqlite:.edgesim/queues.db"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A valid project, which is the current folder."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "w.py").write_text(MODULE)
    (tmp_path / "w" / "wrangler.jsonc").write_text(json.dumps(WRANGLER))
    (tmp_path / "edgesim.toml").write_text(ACCOUNT)
    (tmp_path / "one.ndjson").write_text('{"event": "a"}\n')
    (tmp_path / "broken.gz").write_bytes(b"\x1f\x8b\x08\x00 not gzip")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command; return its exit code and its only line on standard error."""
    try:
        code = main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return code, lines[0]


COMMANDS = [
    ("frobnicate", "edgesim: argument COMMAND: invalid choice 'frobnicate' (choose from init,"),
    ("chekc", "did you mean check?"),
    ("r2 lss events", "edgesim r2: argument ACTION: invalid choice 'lss'"),
    ("queue peek jobs --limt 3", "edgesim queue peek: unrecognized argument '--limt'; did you"),
    ("queue peek jobs --limit many", "argument --limit: not a whole number: 'many'"),
    ("replay", "edgesim replay: the following arguments are required: FIXTURE"),
    ("dev --port http", "'http' is not a port: a number from 0 to 65535"),
    ("serve --port 70000", "'70000' is not a port: a number from 0 to 65535"),
    ("serve --drain-seconds soon", "'soon' is not a number of seconds"),
    ("dev --isolation thread", "'thread' is none of process, warm, inline"),
    ("dev --isolation x=inline", "there is no Worker named 'x'; known: default, w"),
    ("queue peek jbs", "the project has no queue 'jbs'; did you mean 'jobs'?"),
    ("r2 ls evnts", "the project has no bucket 'evnts'; did you mean 'events'?"),
    ("r2 requeue events --since yesterday", "since: 'yesterday' is not an ISO date or time"),
    ("queue ls --queues sqlit:x", "--queues: no driver for 'sqlit:"),
    ("queue ls --queues nats://h:port", "--queues: 'nats://h:port' is not a valid URL"),
    ("r2 ls events --r2 s3://[h", "--r2: 's3://[h' is not a valid URL"),
    ("replay missing.ndjson", "missing.ndjson: cannot be read as a fixture: No such file"),
    ("replay w", "w: cannot be read as a fixture: Is a directory"),
    ("replay broken.gz", "broken.gz: cannot be read as a fixture: "),
    ("replay one.ndjson --junit w", "--junit w: Is a directory; name another path"),
    ("replay one.ndjson --journal w", "--journal w: Is a directory; name another path"),
    (
        "replay one.ndjson --expect edgesim.toml",
        "edgesim.toml: workers: unknown key; known: counts, objects",
    ),
    ("export cloudflare --out edgesim.toml/x", "--out edgesim.toml/x/w: Not a directory"),
    ("init edgesim.toml/x", "edgesim.toml/x: Not a directory; name another path"),
    ("queue ls --state edgesim.toml/x", "--state "),
    ("r2 put events k w", "cannot read w: Is a directory"),
    ("check edgesim.toml/x", "no project here: edgesim.toml/x/edgesim.toml does not exist"),
]


@pytest.mark.parametrize(("words", "expected"), COMMANDS)
def test_a_bad_argument_is_one_line(words, expected, project, capsys):
    """The line names the command or option, the value, and what is accepted."""
    code, line = complaint(words.split(), capsys)
    assert code == 2
    assert expected in line
    assert line.startswith("edgesim")


def test_a_full_disk_is_one_line_with_its_paths(project, capsys):
    """A failed write names the paths that the command was to write, and exits with 3."""
    full = ["replay", "one.ndjson", "--isolation", "inline", "--journal", "/dev/full"]
    code, line = complaint(full, capsys)
    assert code == 3
    assert line.startswith("edgesim: No space left on device: /dev/full")
    assert line.endswith("free some space there")


ACCOUNTS = [
    ('workers = ["v"]', "workers[0]: 'v' is not a Worker: it has none of wrangler.json, "),
    (f'workers = ["{"v" * 300}"]', "workers[0]: 'vvv"),
    ('workers = ["\\u0000"]', r"workers[0]: '\x00' is not a Worker"),
    ('workers = ["w"]\nisolation = "thread"', "isolation: 'thread' is not one of process, warm"),
    ('workers = ["w"]\nisolation = 5', "isolation: must be one of process, warm, inline"),
    ('workers = ["w"]\nr2 = 5', "r2: Expected `table`, got `int`"),
    ('workers = ["w"]\n[tail]\nmax_seconds = nan', "tail.max_seconds: is not a finite number"),
    (
        'workers = ["w"]\n[pipelines.events]\nbucket = "events"\ncompression = "zip"',
        "pipelines.events.compression: 'zip' is not one of gzip, none",
    ),
    (
        'workers = ["w"]\n[queues.jobs]\nretention_seconds = 5',
        "queues.jobs.retention_seconds: must be 60 to 1209600, not 5",
    ),
    (
        'workers = ["w"]\n[queues.pulled.pull]\ndead_letter_queue = ""',
        "queues.pulled.pull.dead_letter_queue: is empty; name a queue",
    ),
    ('workers = ["w"]\n[queus.jobs]', "queus: unknown key; did you mean 'queues'?"),
    (
        'workers = ["w"]\n[[r2.events.notifications]]\nqueue = "jobs"\nactions = ["Put"]',
        "r2.events.notifications[0].actions[0]: 'Put' is not one of PutObject, CopyObject",
    ),
]


@pytest.mark.parametrize(("text", "expected"), ACCOUNTS)
@pytest.mark.parametrize("command", ["check", "queue ls"])
def test_a_bad_key_is_one_line_for_every_command(command, text, expected, project, capsys):
    """The line names edgesim.toml, the key and what is accepted, whichever command reads it."""
    (project / "edgesim.toml").write_text(text)
    code, line = complaint(command.split(), capsys)
    assert code == 2
    assert f"{project / 'edgesim.toml'}: {expected}" in line
    assert len(line) < 500


BAD_VALUES = [
    "text",
    "",
    "\0",
    "a" * 300,
    5,
    -1,
    1.5,
    10**30,
    True,
    None,
    [],
    {},
    ["x"],
    [None],
    {"x": 1},
]


def keys_of(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths of all keys and list items."""
    items = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore[arg-type]
    return [
        found
        for key, each in items
        for found in [
            (*path, key),
            *(keys_of(each, (*path, key)) if isinstance(each, dict | list) else []),
        ]
    ]


@pytest.mark.parametrize("path", keys_of(WRANGLER), ids=str)
def test_a_wrangler_file_is_read_or_refused_with_its_name(path, project):
    """A key with any kind of value is accepted, or the error names a file of the project."""
    file = project / "w" / "wrangler.jsonc"
    for value in BAD_VALUES:
        table = json.loads(json.dumps(WRANGLER))
        inner = table
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        file.write_text(json.dumps(table))
        refusal = refused(project)
        assert not refusal or re.match(rf"{project}/(w/wrangler.jsonc|edgesim.toml): \S", refusal)


def refused(project: Path) -> str:
    """The error of reading the project; empty if it is valid."""
    try:
        load_project(project)
    except ConfigError as error:
        return str(error)
    return ""

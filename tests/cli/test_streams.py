"""Streams, SQL and sinks on the command line: a real server, replays with kills, the export."""

import json
import subprocess
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.processes import dev, edgesim

ID = "0123456789abcdef0123456789abcdef"
ACCOUNT = f"""
workers = ["receiver"]
[streams.clicks]
id = "{ID}"
schema = "clicks.json"
[streams.raw]
[sinks.lake]
bucket = "lake"
format = "json"
path = "clicks"
[sinks.archive]
bucket = "archive"
format = "json"
compression = "gzip"
roll_interval = 60
[pipelines.clicks_to_lake]
sql = "INSERT INTO lake SELECT * FROM clicks; INSERT INTO archive SELECT * FROM clicks"
[pipelines.raw_to_archive]
sql_file = "raw.sql"
"""
SCHEMA = {"fields": [{"name": "n", "type": "int64", "required": True}]}
MODULE = """
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        records = await request.json()
        await self.env.CLICKS.send(records)
        await self.env.RAW.send(records)
        return Response("OK")
"""
WRANGLER = {
    "name": "receiver",
    "main": "entry.py",
    "compatibility_date": "2026-10-01",
    "compatibility_flags": ["python_workers"],
    "pipelines": [{"binding": "CLICKS", "stream": ID}, {"binding": "RAW", "stream": "raw"}],
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "receiver").mkdir(parents=True)
    (folder / "edgesim.toml").write_text(ACCOUNT)
    (folder / "clicks.json").write_text(json.dumps(SCHEMA))
    (folder / "raw.sql").write_text("INSERT INTO archive SELECT * FROM raw;\n")
    (folder / "receiver" / "entry.py").write_text(MODULE)
    (folder / "receiver" / "wrangler.jsonc").write_text(json.dumps(WRANGLER))
    return folder


def rows_of(project: Path, state: Path, bucket: str) -> list[str]:
    """All rows of a bucket's files, sorted."""
    listed = edgesim("r2", "ls", bucket, "--project", project, "--state", state)
    assert listed.returncode == 0, listed.stderr
    lines = []
    for line in listed.stdout.splitlines():
        key = line.split()[0]
        got = edgesim("r2", "get", bucket, key, "--project", project, "--state", state)
        assert got.returncode == 0, got.stderr
        lines += got.stdout.splitlines()
    return sorted(lines)


def test_from_a_worker_to_two_sinks(project, tmp_path):
    """Bindings by id and by name reach their streams; each sink gets its rows once."""
    with dev(project, tmp_path / "state") as running:
        assert running.post([{"n": 1, "other": True}, {"n": "two"}]) == 200
        stats = running.drain()
        status, body = running.request("/cdn-cgi/edgesim/streams/clicks/dropped", method="GET")
        assert status == 200
        [sample] = json.loads(body)
        assert (sample["reason"], sample["column"]) == ("type_mismatch", "n")
        assert json.loads(sample["record"]) == {"n": "two"}
        assert running.request("/cdn-cgi/edgesim/streams/click/dropped", method="GET")[0] == 404
        assert rows_of(project, tmp_path / "state", "lake") == ['{"n":1}']
        assert running.stop() == 0
    clicks = stats["streams"]["clicks"]
    assert (clicks["records"], clicks["pending"]) == (2, 0)
    assert clicks["dropped"] == {"type_mismatch": 1}
    assert stats["streams"]["raw"]["records"] == 2
    assert stats["pipelines"]["clicks_to_lake"]["objects"] == 2
    assert stats["pipelines"]["raw_to_archive"]["records"] == 2
    assert stats["sinks"]["lake"]["records"] == 1
    assert stats["sinks"]["archive"] == {
        "records": 3,
        "files": 2,
        "bytes": 8 + 31 + 22,
        "failing": 0,
    }
    assert stats["r2"]["archive"]["objects"] == 2


def test_a_replay_repeats_itself_through_kills_and_faults(project, tmp_path):
    """Two replays with the same seed are equal, and no record is lost or stored twice."""
    fixture = tmp_path / "traffic.ndjson"
    lines = [{"at": at, "request": {"json": [{"n": at}]}} for at in (0, 30, 59, 61, 200, 299, 400)]
    fixture.write_text("".join(json.dumps(each) + "\n" for each in lines))
    expected = tmp_path / "expected.toml"
    expected.write_text("objects.lake.rows = 7\nobjects.archive.rows = 14\n")
    faults = "platform kill at 59500ms\nplatform kill at 300s\nr2 lost-answer 20%\nr2 error 10%"
    arguments = ("--project", project, "--seed", "4", "--faults", faults, "--expect", expected)
    reports = []
    for _ in range(2):
        done = edgesim("replay", fixture, "--report", "json", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        reports.append(done.stdout)
    assert reports[0] == reports[1]
    stats = json.loads(reports[0])["stats"]
    assert stats["streams"]["clicks"]["records"] == 7
    assert stats["streams"]["clicks"]["pending"] == 0


def test_the_export_creates_streams_before_sinks_before_pipelines(project, tmp_path):
    """The script has the current commands in order, the schema and the SQL in files."""
    out = tmp_path / "out"
    done = edgesim("export", "cloudflare", project, "--out", out)
    assert done.returncode == 0, done.stderr
    script = (out / "setup.sh").read_text()
    order = [
        "\nstream clicks --http-enabled true --http-auth false\n",
        "\nsink lake --type r2 --bucket lake --format json",
        "\npipeline clicks_to_lake\n",
        "\nbind_stream receiver/wrangler.jsonc clicks\n",
    ]
    places = [script.index(each) for each in order]
    assert places == sorted(places)
    assert "--partitioning year=%Y/month=%m/day=%d" in script
    assert json.loads((out / "streams" / "clicks.json").read_text()) == SCHEMA
    assert (out / "pipelines" / "raw_to_archive.sql").read_text().startswith("INSERT INTO archive")
    assert '"stream": "clicks"' in (out / "receiver" / "wrangler.jsonc").read_text()
    subprocess.run(["sh", "-n", out / "setup.sh"], check=True)


FAN_OUT = """
INSERT INTO posts SELECT id, at, upper(text) AS text FROM events WHERE kind = 'post';
INSERT INTO likes SELECT id, extra->>'of' AS liked FROM events WHERE kind = 'like';
"""
FAN_OUT_ACCOUNT = """
workers = ["receiver"]
[streams.events]
schema = "events.json"
[sinks.posts]
bucket = "lake"
path = "posts"
[sinks.likes]
bucket = "lake"
path = "likes"
format = "json"
[pipelines.fan_out]
sql_file = "fan_out.sql"
"""
EVENT_FIELDS = [
    {"name": "id", "type": "string", "required": True},
    {"name": "kind", "type": "string", "required": True},
    {"name": "at", "type": "timestamp"},
    {"name": "text", "type": "string"},
    {"name": "extra", "type": "json"},
]
EVENTS = [
    {"id": "1", "kind": "post", "at": "2026-11-29T12:00:00.5Z", "text": "hello"},
    {"id": "2", "kind": "like", "extra": {"of": "1"}},
    {"id": "3", "kind": "block"},
    {"id": 4, "kind": "post"},
    {"id": "5", "kind": "post", "at": 1764417600000, "text": None},
]


@pytest.fixture
def fan_out(project: Path) -> Path:
    """One stream, routed by its records' kind into a Parquet and a JSON sink."""
    (project / "edgesim.toml").write_text(FAN_OUT_ACCOUNT)
    (project / "events.json").write_text(json.dumps({"fields": EVENT_FIELDS}))
    (project / "fan_out.sql").write_text(FAN_OUT)
    wrangler = WRANGLER | {"pipelines": [{"binding": "CLICKS", "stream": "events"}]}
    (project / "receiver" / "entry.py").write_text(MODULE.replace("RAW", "CLICKS"))
    (project / "receiver" / "wrangler.jsonc").write_text(json.dumps(wrangler))
    return project


def test_a_stream_fans_out_by_sql(fan_out, tmp_path):
    """Records sent over HTTP are in the file of their kind: Parquet with its types, and JSON."""
    state = tmp_path / "state"
    with dev(fan_out, state) as running:
        path = "/cdn-cgi/edgesim/ingest/events"
        status, body = running.request(path, json.dumps(EVENTS).encode())
        assert (status, json.loads(body)["result"]["committed"]) == (200, 5)
        stats = running.drain()
        listed = edgesim("r2", "ls", "lake", "--project", fan_out, "--state", state)
        files = [line.split()[0] for line in listed.stdout.splitlines()]
        for key in files:
            out = tmp_path / Path(key).name
            done = edgesim(
                *("r2", "get", "lake", key, "--out", out, "--project", fan_out, "--state", state)
            )
            assert done.returncode == 0, done.stderr
        assert running.stop() == 0
    likes, posts = sorted(files)
    assert [likes.partition("/")[0], posts.partition("/")[0]] == ["likes", "posts"]
    assert (tmp_path / Path(likes).name).read_text() == '{"id":"2","liked":"1"}\n'
    table = pyarrow.parquet.read_table(tmp_path / Path(posts).name)
    assert table.column_names == ["id", "at", "text"]
    assert table.column("id").to_pylist() == ["1", "5"]
    assert table.column("text").to_pylist() == ["HELLO", None]
    assert [at.isoformat() for at in table.column("at").to_pylist()] == [
        "2026-11-29T12:00:00.500000",
        "2025-11-29T12:00:00",
    ]
    assert stats["sinks"]["posts"]["records"] == 2
    assert stats["pipelines"]["fan_out"]["objects"] == 2
    assert [file for file in (state / "sql").rglob("*") if not file.is_dir()] == []


def test_sql_runs_in_virtual_time_through_kills(fan_out, tmp_path):
    """A replay with kills runs the same SQL: equal reports, and every row once."""
    fixture, expected = tmp_path / "traffic.ndjson", tmp_path / "expected.toml"
    lines = [{"at": at, "request": {"json": EVENTS}} for at in (0, 100, 299, 301)]
    fixture.write_text("".join(json.dumps(each) + "\n" for each in lines))
    expected.write_text('objects.lake = {prefix = "likes/", rows = 8}\n')
    faults = "platform kill at 299500ms\nplatform kill at 300200ms\nr2 lost-answer 30%"
    arguments = ("--project", fan_out, "--seed", "7", "--faults", faults, "--expect", expected)
    reports = []
    for _ in range(2):
        done = edgesim("replay", fixture, "--report", "json", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        reports.append(done.stdout)
    assert reports[0] == reports[1]


def test_check_and_dev_refuse_what_the_engine_refuses(fan_out):
    """A wrong column or function is one line with its place in the file; exit 2."""
    for old, new, place in (
        ("SELECT id, at", "SELECT id, att", "fan_out.sql: line 2, column 30: "),
        ("upper(", "uper(", "fan_out.sql: line 2, column 34: "),
    ):
        (fan_out / "fan_out.sql").write_text(FAN_OUT.replace(old, new))
        for command in ("check", "dev"):
            done = edgesim(command, fan_out)
            assert done.returncode == 2, done.stdout
            [line] = [each for each in done.stderr.splitlines() if "fan_out.sql" in each]
            assert place in line


def test_a_wrong_statement_ends_with_one_line(project):
    """`check` and `dev` refuse SQL at its file, line and column, with exit code 2."""
    (project / "raw.sql").write_text("INSERT INTO archive\nSELECT * FROM raw JOIN clicks;\n")
    for command in ("check", "dev"):
        done = edgesim(command, project)
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert "raw.sql: line 2, column 19: JOIN" in line

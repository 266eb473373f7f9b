"""Iceberg tables of a running project, as ordinary clients see them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.iceberg_client import rows_by_clickhouse, rows_of_table, run_client
from tests.processes import Dev, dev, edgesim
from tests.simulated import write_worker

ACCOUNT = """
workers = ["main"]
[streams.plays]
schema = "plays.json"
[sinks.table]
type = "r2-data-catalog"
bucket = "lake"
namespace = "games"
table = "plays"
roll_interval = 60
[pipelines.flow]
sql_file = "flow.sql"
"""
SCHEMA = {
    "fields": [
        {"name": "id", "type": "string", "required": True},
        {"name": "n", "type": "int64"},
        {"name": "at", "type": "timestamp", "unit": "second"},
        {"name": "tags", "type": "list", "items": {"type": "string"}},
        {"name": "geo", "type": "struct", "fields": [{"name": "city", "type": "string"}]},
    ]
}
MODULE = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("OK")
"""
PLAY = {
    "id": "a",
    "n": 1 << 60,
    "at": 1_700_000_000,
    "tags": ["x", None],
    "geo": {"city": "K\u00f6ln"},
}
CATALOG = "/cdn-cgi/edgesim/catalog"
S3 = "/cdn-cgi/local/r2/s3"


def write_project(folder: Path) -> Path:
    folder.mkdir()
    (folder / "edgesim.toml").write_text(ACCOUNT)
    (folder / "plays.json").write_text(json.dumps(SCHEMA))
    (folder / "flow.sql").write_text('INSERT INTO "table" SELECT * FROM plays WHERE n IS NOT NULL')
    write_worker(folder, "main", MODULE)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dev, Path]]:
    """A running project whose tables no test changes, and its folder."""
    folder = tmp_path_factory.mktemp("shared")
    project = write_project(folder / "project")
    with dev(project, folder / "state", "--no-reload") as running:
        yield running, folder


def send(running: Dev, *records: object) -> None:
    status, body = running.request("/cdn-cgi/edgesim/ingest/plays", json.dumps(records).encode())
    assert status == 200, body


def get(running: Dev, path: str, **headers: str) -> tuple[int, str]:
    status, body = running.request(path, method="GET", headers=headers)
    return status, body.decode()


def test_clients_read_the_table_while_edgesim_runs(project, tmp_path):
    """pyiceberg and ClickHouse see each row once, before and after a restart."""
    with dev(project, tmp_path / "state", "--no-reload") as running:
        assert rows_of_table(running.url, "lake", "games.plays") == []
        send(running, PLAY, {"id": "no number"})
        running.drain()
        [row] = rows_of_table(running.url, "lake", "games.plays")
        assert row["at"] == "2023-11-14 22:13:20"
        assert {name: row[name] for name in ("id", "n", "tags", "geo")} == {
            name: PLAY[name] for name in ("id", "n", "tags", "geo")
        }
        assert running.stop() == 0
    with dev(project, tmp_path / "state", "--no-reload") as running:
        send(running, PLAY | {"id": "b"})
        running.drain()
        for rows in (
            rows_of_table(running.url, "lake", "games.plays"),
            rows_by_clickhouse(running.url, "lake", "games.plays"),
        ):
            assert sorted((row["id"], int(row["n"])) for row in rows) == [
                ("a", PLAY["n"]),
                ("b", PLAY["n"]),
            ]
        assert running.stop() == 0


MAINTENANCE = """
import pyarrow
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField

loaded = catalog.load_table(table)
old = [each.snapshot_id for each in loaded.snapshots()][:-1]
assert len(old) == 1
loaded.maintenance.expire_snapshots().by_ids(old).commit()
assert len(catalog.load_table(table).snapshots()) == 1
made = catalog.create_table("games.own", Schema(NestedField(1, "n", LongType())))
made.append(pyarrow.table({"n": [1, 2]}))
"""


def test_a_client_expires_snapshots_and_writes_a_table(project, tmp_path):
    """No row is lost, the sink goes on, and the client's own table has its rows."""
    with dev(project, tmp_path / "state", "--no-reload") as running:
        for name in ("a", "b", "c"):
            send(running, PLAY | {"id": name})
            running.drain()
            if name == "b":
                run_client(running.url, "lake", "games.plays", MAINTENANCE)
        rows = rows_of_table(running.url, "lake", "games.plays")
        assert sorted(row["id"] for row in rows) == ["a", "b", "c"]
        assert rows_of_table(running.url, "lake", "games.own") == [{"n": 1}, {"n": 2}]
        assert running.stop() == 0


CLIENT = """
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StringType
from pyiceberg.exceptions import NamespaceNotEmptyError, NoSuchTableError, TableAlreadyExistsError

loaded = catalog.load_table(table)
with loaded.update_schema() as change:
    change.add_column("more", StringType())
with loaded.transaction() as change:
    change.set_properties(owner="me")
assert catalog.load_table(table).properties["owner"] == "me"
catalog.create_namespace("mine", {"a": "1"})
catalog.update_namespace_properties("mine", {"a"}, {"b": "2"})
assert catalog.load_namespace_properties("mine") == {"b": "2"}
catalog.create_namespace(("mine", "inner"))
assert catalog.list_namespaces("mine") == [("mine", "inner")]
made = catalog.create_table("mine.t", Schema(NestedField(1, "n", LongType())))
try:
    catalog.create_table("mine.t", made.schema())
    raise SystemExit("a table was created twice")
except TableAlreadyExistsError:
    pass
with catalog.create_table_transaction("mine.staged", made.schema()) as change:
    change.set_properties(staged="yes")
assert catalog.load_table("mine.staged").properties["staged"] == "yes"
catalog.rename_table("mine.t", "mine.u")
assert sorted(catalog.list_tables("mine")) == [("mine", "staged"), ("mine", "u")]
assert catalog.table_exists("mine.u") and not catalog.table_exists("mine.t")
try:
    catalog.drop_namespace("mine")
    raise SystemExit("a namespace with tables was dropped")
except NamespaceNotEmptyError:
    pass
where = catalog.load_table("mine.u").metadata_location
catalog.drop_table("mine.u")
catalog.register_table("mine.again", where)
try:
    catalog.load_table("mine.u")
    raise SystemExit("a dropped table was loaded")
except NoSuchTableError:
    pass
"""


def test_clients_change_the_catalog(project, tmp_path):
    """Namespaces and tables are made, changed and dropped; the sink goes on beside that."""
    with dev(project, tmp_path / "state", "--no-reload") as running:
        send(running, PLAY)
        running.drain()
        run_client(running.url, "lake", "games.plays", CLIENT)
        send(running, PLAY | {"id": "b"})
        running.drain()
        rows = rows_of_table(running.url, "lake", "games.plays")
        assert sorted((row["id"], row["more"]) for row in rows) == [("a", None), ("b", None)]


def test_wrong_requests_get_one_line(server):
    """A bucket without a catalog, a wrong warehouse or a damaged body: what it is, and the cure."""
    running, _ = server
    for path, expected, problem in (
        (f"{CATALOG}/lakes/v1/config", 404, "did you mean 'lake'?"),
        (f"{CATALOG}/lake/v1/config?warehouse=x", 404, "edgesim_lake"),
        (f"{CATALOG}/lake/v1/x/namespaces/no", 404, "no namespace no"),
        (f"{CATALOG}/lake/v1/x/namespaces/games/tables/no", 404, "no table games.no"),
        (f"{CATALOG}/lake/v1/x/namespaces?pageSize=x", 400, "pageSize"),
        (f"{CATALOG}/lake/v1/x/namespaces?pageToken={'9' * 5000}", 400, "pageToken"),
    ):
        found, text = get(running, path)
        error = json.loads(text)["error"]
        assert (found, error["code"]) == (expected, expected)
        assert problem in error["message"]
    tables = f"{CATALOG}/lake/v1/x/namespaces/games/tables"
    for body, problem in (
        (b"{", "truncated"),
        (b'{"name": "t", "x": ' + b"[" * 100_000, "recursion"),
        (b'{"name": "\xff"}', "the body is damaged"),
        (b'{"name": "t"}', "schema"),
        (b'{"name": "t", "schema": {"type": "struct", "fields": [{}]}}', "schema"),
    ):
        status, answer = running.request(tables, body)
        assert (status, problem in json.loads(answer)["error"]["message"]) == (400, True)
    assert get(running, f"{S3}/no/key")[0] == 404
    assert get(running, f"{S3}/lake?max-keys={'9' * 5000}")[0] == 400
    assert get(running, f"{S3}/lake/no")[0] == 404
    assert "<Code>NoSuchKey" in get(running, f"{S3}/lake/no")[1]
    page = {"origin": "https://evil.example"}
    assert get(running, f"{CATALOG}/lake/v1/config", **page)[0] == 401
    assert get(running, f"{S3}/lake/no", **page)[0] == 403


def test_files_are_read_in_parts(server, tmp_path):
    """GET with ranges, HEAD and lists, as S3 clients use them."""
    running, folder = server
    where = ("--project", folder / "project", "--state", folder / "state")
    (tmp_path / "file").write_bytes(b"0123456789")
    assert edgesim("r2", "put", "lake", "a/b&c", tmp_path / "file", *where).returncode == 0
    path = f"{S3}/lake/a/b%26c"
    for span, status, body in (
        ("bytes=2-4", 206, "234"),
        ("bytes=7-", 206, "789"),
        ("bytes=-2", 206, "89"),
        ("bytes=8-99", 206, "89"),
        ("bytes=10-", 416, None),
        ("bytes=x", 400, None),
        (f"bytes={'9' * 5000}-", 400, None),
    ):
        found, text = get(running, path, range=span)
        assert (found, text if body is not None else None) == (status, body)
    assert running.request(path, method="HEAD") == (200, b"")
    _, listed = get(running, f"{S3}/lake?list-type=2&prefix=a/")
    assert "<Key>a/b&amp;c</Key>" in listed
    assert "<Size>10</Size>" in listed
    _, listed = get(running, "/cdn-cgi?list-type=2&prefix=local/r2/s3/lake/a")
    assert "<Key>local/r2/s3/lake/a/b&amp;c</Key>" in listed


def test_the_admin_token_opens_catalog_and_files(project, tmp_path, monkeypatch):
    """With a token set, clients without it are refused; files open by the session token."""
    monkeypatch.setenv("EDGESIM_ADMIN_TOKEN", "secret")
    with dev(project, tmp_path / "state", "--no-reload") as running:
        send(running, PLAY)
        drained, _ = running.request(
            "/cdn-cgi/edgesim/drain", b"", headers={"authorization": "Bearer secret"}
        )
        assert drained == 200
        assert get(running, f"{CATALOG}/lake/v1/config")[0] == 401
        assert get(running, f"{S3}/lake?list-type=2")[0] == 403
        assert len(rows_of_table(running.url, "lake", "games.plays", "secret")) == 1
        assert len(rows_by_clickhouse(running.url, "lake", "games.plays", "secret")) == 1


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELECT id, NULL AS gone FROM plays", "column 'gone': Iceberg has no null"),
        ("SELECT id AS __ingest_ts FROM plays", "column '__ingest_ts': the sink adds it"),
    ],
)
def test_columns_that_a_table_cannot_have(project, tmp_path, sql, problem):
    """`check` and `dev` refuse the statement with one line and its place."""
    (project / "flow.sql").write_text(f'-- to a table\nINSERT INTO "table" {sql}')
    for command in (("check", project), ("dev", project, "--state", tmp_path / "s")):
        done = edgesim(*command)
        assert done.returncode == 2
        assert f"flow.sql: line 2, column 1: {problem}" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_replay_is_the_same_each_time(project, tmp_path):
    """Two replays with a seed report the same, tables included."""
    fixture = tmp_path / "plays.ndjson"
    request = {"path": "/cdn-cgi/edgesim/ingest/plays", "json": [PLAY]}
    lines = [{"at": at, "request": request} for at in (0, 10, 100)]
    fixture.write_text("".join(json.dumps(line) + "\n" for line in lines))
    reports = []
    for _ in range(2):
        done = edgesim(
            "replay", fixture, "--project", project, "--seed", 7, "--report", "json", "--check"
        )
        assert done.returncode == 0, done.stdout + done.stderr
        reports.append(done.stdout)
    assert reports[0] == reports[1]
    assert json.loads(reports[0])["stats"]["sinks"]["table"]["records"] == 3


def test_the_export_makes_catalog_and_table(project, tmp_path):
    """The script enables the bucket's catalog before the sink, whose token it wants."""
    done = edgesim("export", "cloudflare", project, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    [script] = (tmp_path / "out").glob("*.sh")
    text = script.read_text()
    assert text.index("\ncatalog lake\n") < text.index("\nsink table --type r2-data-catalog")
    assert "--namespace games --table plays" in text
    assert '--catalog-token "${CATALOG_TOKEN:?' in text

"""`edgesim pipelines run`: rows, drops and types of a pipeline without a server."""

import json
from pathlib import Path

import pytest

from tests.processes import edgesim
from tests.simulated import write_worker

ACCOUNT = """
workers = ["main"]
[streams.orders]
schema = "orders.json"
[streams.raw]
[sinks.large]
bucket = "lake"
[sinks.all]
bucket = "lake"
format = "json"
[pipelines.split]
sql = "INSERT INTO large SELECT id, amount * 2 AS twice FROM orders WHERE amount > 10; \
INSERT INTO all SELECT * FROM orders"
[pipelines.mixed]
sql = "INSERT INTO all SELECT * FROM orders; INSERT INTO all SELECT * FROM raw"
"""
BAD = """
[pipelines.bad]
sql = '''INSERT INTO large
SELECT uper(id) AS x FROM orders'''
"""
SCHEMA = {
    "fields": [
        {"name": "id", "type": "string", "required": True},
        {"name": "amount", "type": "float64"},
    ]
}
RECORDS = [
    {"id": "a", "amount": 12.5, "x": 1},
    {"id": "b"},
    {"amount": 99},
    {"id": "c", "amount": 3},
]
MODULE = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("OK")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "edgesim.toml").write_text(ACCOUNT)
    (tmp_path / "orders.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "records.ndjson").write_text("\n\n".join(json.dumps(each) for each in RECORDS))
    write_worker(tmp_path, "main", MODULE)
    return tmp_path


def run(project: Path, *arguments: object, name: str = "split", records: str = "records.ndjson"):
    command = ("pipelines", "run", name, "--project", project, "--input", project / records)
    return edgesim(*command, *arguments)


def test_rows_types_and_drops_as_tables(project):
    """Each sink has a table with names, types and rows; dropped records have their reason."""
    done = run(project)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["large:", "1", "rows"] in lines
    assert ["string!", "double"] in lines
    assert ["a", "25.0"] in lines
    assert ["all:", "3", "rows"] in lines
    assert ["b", "null"] in lines
    assert "dropped record 3: missing_field (id)" in done.stdout
    assert done.stdout.endswith("4 records, 1 into large, 3 into all, 1 dropped\n")


def test_json_for_programs(project):
    """--json prints the same as one JSON document."""
    found = json.loads(run(project, "--json").stdout)
    assert found["dropped"] == [{"record": 3, "reason": "missing_field", "column": "id"}]
    assert [(each["sink"], len(each["rows"])) for each in found["sinks"]] == [
        ("large", 1),
        ("all", 3),
    ]
    assert found["sinks"][0]["columns"] == {"id": "string", "twice": "double"}


def test_expected_rows(project):
    """--update writes the file, --expect compares with it: exit 1 with a difference by rows."""
    expected = project / "expected.json"
    missing = run(project, "--expect", expected)
    assert (missing.returncode, "--update writes it" in missing.stderr) == (2, True)
    assert run(project, "--expect", expected, "--update").returncode == 0
    right = run(project, "--expect", expected)
    assert (right.returncode, right.stdout.startswith("as expected: ")) == (0, True)
    (project / "edgesim.toml").write_text(ACCOUNT.replace("> 10", "> 1"))
    wrong = run(project, "--expect", expected)
    assert wrong.returncode == 1
    assert '+  {"id":"c","twice":6.0}' in wrong.stdout
    assert "other rows than expected" in wrong.stderr
    run(project, "--expect", expected, "--update")
    assert run(project, "--expect", expected).returncode == 0


def test_a_pipeline_of_several_streams(project):
    """The records' stream must be named; only its statements are run."""
    refused = run(project, name="mixed")
    assert (refused.returncode, "--stream" in refused.stderr) == (2, True)
    done = run(project, "--stream", "raw", "--json", name="mixed")
    [sink] = json.loads(done.stdout)["sinks"]
    assert sink["rows"] == [{"value": record} for record in RECORDS]


@pytest.mark.parametrize(
    ("arguments", "name", "reason"),
    [
        ((), "spilt", "did you mean 'split'?"),
        (("--stream", "raw"), "split", "known: orders"),
        (("--update",), "split", "--expect"),
    ],
)
def test_wrong_arguments(project, arguments, name, reason):
    """One line with the fix, exit 2."""
    done = run(project, *arguments, name=name)
    assert done.returncode == 2
    assert reason in done.stderr


@pytest.mark.parametrize("line", ["{", "[1]", "5", '{"a": NaN}', "\u2028{}"])
def test_a_line_that_is_no_record(project, line):
    """The error has the file and the line."""
    (project / "bad.ndjson").write_text('{"id": "a"}\n' + line + "\n")
    done = run(project, records="bad.ndjson")
    assert done.returncode == 2
    assert "bad.ndjson: line 2: " in done.stderr


def test_records_on_which_sql_fails(project):
    """A row on which a statement fails is listed with the sink and the engine's reason."""
    sql = ACCOUNT.replace("amount * 2 AS twice", "1 / cast(amount AS int) AS x").replace(
        "> 10", "> 0"
    )
    (project / "edgesim.toml").write_text(sql)
    (project / "zero.ndjson").write_text('{"id": "a", "amount": 0.5}\n')
    done = run(project, records="zero.ndjson")
    assert done.returncode == 0
    [line] = [each for each in done.stdout.splitlines() if each.startswith("dropped record")]
    assert line.startswith("dropped record 1: sql_error (into large: ")
    assert "Divide by zero" in line


def test_sql_that_the_engine_refuses(project):
    """The error has the file and the place, as that of `check`."""
    account = project / "edgesim.toml"
    account.write_text(account.read_text() + BAD)
    done = run(project, name="bad")
    assert done.returncode == 2
    assert "edgesim.toml: pipelines.bad.sql: line 2, column 8: " in done.stderr
    assert "uper" in done.stderr

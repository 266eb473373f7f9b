"""Streams, sinks and pipelines with SQL in edgesim.toml: what is read, and what is refused."""

import json
from pathlib import Path

import pytest

from edgesim.config import load_project
from edgesim.config.stream_schema import column_names
from edgesim.errors import ConfigError

ID = "0123456789abcdef0123456789abcdef"
STREAM = "[streams.clicks]\n"
SINK = '[sinks.lake]\nbucket = "lake"\nformat = "json"\n'
CATALOG = '[sinks.lake]\nbucket = "lake"\ntype = "r2-data-catalog"\n'
TABLE = CATALOG + 'namespace = "a.b"\ntable = "t"\n'
PIPELINE = '[pipelines.flow]\nsql = "INSERT INTO lake SELECT * FROM clicks"\n'
FLOW = STREAM + SINK + PIPELINE
SCHEMA = {
    "fields": [
        {"name": "id", "type": "string", "required": True},
        {"name": "at", "type": "timestamp", "unit": "second"},
        {"name": "tags", "type": "list", "items": {"type": "string"}},
        {"name": "from", "type": "struct", "fields": [{"name": "ip", "type": "string"}]},
    ]
}


def project(folder: Path, account: str, binding: str = "clicks") -> Path:
    (folder / "edgesim.toml").write_text(f'workers = ["a"]\n{account}')
    (folder / "a").mkdir()
    (folder / "a" / "entry.py").write_text("")
    (folder / "a" / "wrangler.toml").write_text(
        f'name = "a"\nmain = "entry.py"\npipelines = [{{binding = "S", stream = "{binding}"}}]\n'
    )
    return folder


def problem(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_project(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_platforms_defaults(tmp_path):
    """A sink rolls every 300 seconds into folders by day; HTTP ingest is on, without a token."""
    flow = load_project(project(tmp_path, FLOW)).dataflow
    sink = flow.sinks["lake"]
    assert (sink.roll_interval, sink.roll_size, sink.compression) == (300, None, "uncompressed")
    assert sink.partitioning == "year=%Y/month=%m/day=%d"
    assert flow.streams["clicks"].fields == []
    assert flow.streams["clicks"].config.http.enabled
    assert not flow.streams["clicks"].config.http.auth
    [statement] = flow.pipelines["flow"].statements
    assert (statement.stream, statement.sink, statement.takes_all) == ("clicks", "lake", True)


def test_a_schema_file_has_cloudflares_format(tmp_path):
    """Fields, nested fields, items and units are read from the file beside edgesim.toml."""
    account = '[streams.clicks]\nschema = "clicks.json"\n' + SINK + PIPELINE
    (tmp_path / "clicks.json").write_text(json.dumps(SCHEMA))
    fields = load_project(project(tmp_path, account)).dataflow.streams["clicks"].fields
    assert column_names(fields) == ["id", "at", "tags", "from"]
    assert fields[1].unit == "second"
    assert fields[2].items is not None
    assert fields[2].items.type == "string"
    assert [each.name for each in fields[3].fields] == ["ip"]


@pytest.mark.parametrize("kind", ["r2-data-catalog", "basin-catalog"])
def test_a_catalog_sink_has_a_table(tmp_path, kind):
    """Both names of the type are known; tables are Parquet, with zstd unless it says otherwise."""
    account = STREAM + TABLE.replace("r2-data-catalog", kind) + PIPELINE
    sink = load_project(project(tmp_path, account)).dataflow.sinks["lake"]
    assert (sink.is_catalog, sink.namespace, sink.table) == (True, "a.b", "t")
    assert (sink.format, sink.compression) == ("parquet", "zstd")


@pytest.mark.parametrize("kind", ["streams", "sinks", "pipelines"])
@pytest.mark.parametrize("count", [20, 21])
def test_an_account_has_twenty_of_each(tmp_path, kind, count):
    """Twenty streams, sinks and pipelines are read; one more is refused with the number."""
    more = {
        "streams": "[streams.s{0}]\n",
        "sinks": '[sinks.s{0}]\nbucket = "lake"\npath = "{0}"\n',
        "pipelines": '[pipelines.s{0}]\nsql = "INSERT INTO lake SELECT * FROM clicks"\n',
    }[kind]
    folder = project(tmp_path, FLOW + "".join(more.format(each) for each in range(count - 1)))
    if count <= 20:
        assert len(getattr(load_project(folder).dataflow, kind)) == count
    else:
        assert f"edgesim.toml: {kind}: there are 21; " in problem(folder)


def test_sql_can_be_in_a_file_of_its_own(tmp_path):
    """Several statements of a file are read, with their comments."""
    (tmp_path / "flow.sql").write_text(
        "-- all of it; twice\nINSERT INTO lake SELECT * FROM clicks;\n"
        "INSERT INTO lake\nSELECT * FROM clicks;\n"
    )
    account = STREAM + SINK + '[pipelines.flow]\nsql_file = "flow.sql"\n'
    spec = load_project(project(tmp_path, account)).dataflow.pipelines["flow"]
    assert [each.place for each in spec.statements] == [(2, 1), (3, 1)]


@pytest.mark.parametrize("binding", ["clicks", ID])
def test_a_binding_names_a_stream_or_its_id(tmp_path, binding):
    """A deployed wrangler file has the stream's id; a local one may have its name."""
    loaded = load_project(
        project(tmp_path, FLOW.replace(STREAM, f'{STREAM}id = "{ID}"\n'), binding)
    )
    assert loaded.workers["a"].settings.pipelines[0].target == "clicks"


@pytest.mark.parametrize(
    ("old", "new", "key", "cure"),
    [
        ('lake"\nformat', 'Lake"\nformat', "sinks.lake.bucket", "lower-case letters"),
        (SINK, '[sinks.lake]\nformat = "json"\n', "sinks.lake", "`bucket`"),
        ("json", "csv", "sinks.lake.format", "csv"),
        (SINK, SINK + 'compression = "zstd"\n', "sinks.lake.compression", "uncompressed, gzip"),
        ("json", 'parquet"\ncompression = "brotli', "sinks.lake.compression", "zstd, snappy"),
        (SINK, SINK + "target_row_group_size = 0\n", "target_row_group_size", "above 0"),
        (SINK, SINK + 'type = "basin-catalog"\n', "sinks.lake.format", "Parquet"),
        (SINK, SINK + 'type = "iceberg"\n', "sinks.lake.type", "r2-data-catalog"),
        (SINK, SINK + 'table = "t"\n', "sinks.lake.table", 'add type = "r2-data-catalog"'),
        (SINK, CATALOG, "sinks.lake.namespace", "missing"),
        (SINK, CATALOG + 'namespace = "a"\n', "sinks.lake.table", "missing"),
        (SINK, CATALOG + 'namespace = "a..b"\ntable = "t"\n', "sinks.lake.namespace", "no name"),
        (SINK, CATALOG + 'namespace = "a"\ntable = "t.u"\n', "sinks.lake.table", "no name"),
        (SINK, CATALOG + 'path = "a"\n', "sinks.lake.path", "decides on a table's keys"),
        (SINK, CATALOG + "roll_interval = 59\n", "sinks.lake.roll_interval", "60 seconds"),
        (SINK, TABLE + TABLE.replace("lake", "more", 1), "sinks.more.table", "'lake' too"),
        (SINK, SINK + "roll_interval = 9\n", "sinks.lake.roll_interval", "10 seconds"),
        (SINK, SINK + "roll_size = 0\n", "sinks.lake.roll_size", "above 0"),
        (SINK, SINK + "roll_sise = 1\n", "sinks.lake.roll_sise", "'roll_size'"),
        (SINK, SINK + 'partitioning = "hour=%Q"\n', "sinks.lake.partitioning", "%H"),
        (SINK, SINK + 'partitioning = "hour=%"\n', "sinks.lake.partitioning", "%H"),
        (STREAM, '[streams."a b"]\n', "streams.a b", "letters"),
        (STREAM, STREAM + 'id = "abc"\n', "streams.clicks.id", "32 hexadecimal"),
        (STREAM, f'{STREAM}id = "{ID}"\n[streams.b]\nid = "{ID}"\n', ".id", "id of its own"),
        (STREAM, STREAM + 'schema = "no.json"\n', "streams.clicks.schema", "no.json"),
        (STREAM, STREAM + 'http = {cors = "*"}\n', "streams.clicks.http.cors", "list"),
        (STREAM, STREAM + "[pipelines.clicks]\nbucket = 'old'\n", "streams.clicks", "both"),
        (PIPELINE, '[pipelines.flow]\nsql_file = "no.sql"\n', "pipelines.flow.sql_file", "no.sql"),
        (PIPELINE, PIPELINE + 'sql_file = "x"\n', "pipelines.flow", "keep one"),
        (PIPELINE, PIPELINE + 'bucket = "x"\n', "pipelines.flow.bucket", "sql_file"),
        ("INTO lake", "INTO lakes", "line 1, column 13", "'lake'"),
        ("FROM clicks", "FROM klicks", "line 1, column 32", "'clicks'"),
        ("FROM clicks", 'FROM \\"Clicks\\"', "line 1, column 32", '"clicks"'),
        ("* FROM clicks", "count(*) FROM clicks", "pipelines.flow.sql", "aggregate"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, old, new, key, cure):
    """Every wrong value is one line with the key and the fix."""
    assert old in FLOW
    said = problem(project(tmp_path, FLOW.replace(old, new)))
    assert key in said
    assert cure in said
    assert "edgesim.toml" in said


@pytest.mark.parametrize(
    ("field", "key", "cure"),
    [
        ({"name": "a", "type": "strin"}, "fields[0].type", "'string'"),
        ({"name": "a", "type": "uint32"}, "fields[0].type", "'int32'"),
        ({"name": "a", "type": "list"}, "fields[0].items", "list"),
        ({"name": "a", "type": "list", "items": {"type": "text"}}, "fields[0].items.type", "types"),
        ({"name": "a", "type": "struct", "fields": [{"name": "b", "type": "dbl"}]}, "[0].type", ""),
        ({"name": "a", "type": "struct"}, "fields[0].fields", "struct"),
        ({"name": "a", "type": "string", "unit": "second"}, "fields[0].unit", "timestamp"),
        ({"name": "a", "type": "timestamp", "unit": "minute"}, "fields[0].unit", "minute"),
        ({"type": "string"}, "fields[0]", "name"),
        ({"name": "a", "type": "string", "requird": True}, "fields[0]", "requird"),
    ],
)
def test_a_wrong_schema_file_is_said_in_one_line(tmp_path, field, key, cure):
    """A wrong field names the schema file, the key and the fix."""
    (tmp_path / "clicks.json").write_text(json.dumps({"fields": [field]}))
    said = problem(project(tmp_path, FLOW.replace(STREAM, f'{STREAM}schema = "clicks.json"\n')))
    assert said.startswith(str(tmp_path / "clicks.json"))
    assert key in said
    assert cure in said


@pytest.mark.parametrize("text", ['{"fields": []}', '{"columns": []}', "[1]", "{"])
def test_a_file_without_fields_is_refused(tmp_path, text):
    """An empty schema, another form, or no JSON is an error that names the file."""
    (tmp_path / "clicks.json").write_text(text)
    said = problem(project(tmp_path, FLOW.replace(STREAM, f'{STREAM}schema = "clicks.json"\n')))
    assert said.startswith(str(tmp_path / "clicks.json"))


def test_an_unknown_binding_suggests_a_stream(tmp_path):
    """A binding to nothing names the Worker's file and the nearest stream."""
    said = problem(project(tmp_path, FLOW, "click"))
    assert "wrangler.toml: pipelines[0].stream" in said
    assert "'clicks'" in said


@pytest.mark.parametrize(("old", "new"), [("json", "parquet"), ("SELECT *", "SELECT value")])
def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch, old, new):
    """SQL and Parquet need libraries; without them the line says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", {}.get)
    said = problem(project(tmp_path, FLOW.replace(old, new)))
    assert "pipelines.flow.sql: line 1, column 1" in said
    assert "pip install 'edgesim[pipelines]'" in said


def test_plain_json_needs_no_extra(tmp_path, monkeypatch):
    """A stream that goes into JSON files as it is works without the libraries."""
    monkeypatch.setattr("importlib.util.find_spec", {}.get)
    assert load_project(project(tmp_path, FLOW)).dataflow.pipelines

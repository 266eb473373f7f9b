"""Streams, pipelines with SQL and sinks of edgesim.toml, checked against each other.

``[pipelines.NAME]`` has two forms: with ``sql`` or ``sql_file`` it connects streams to sinks; with
``bucket`` it is the legacy form, one pipeline with its own bucket.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edgesim.config.files import read_text
from edgesim.config.pipelines import Field, PipelineConfig, is_stream_id
from edgesim.config.sinks import SinkConfig, check_sinks
from edgesim.config.sql_statements import InsertInto, read_statements
from edgesim.config.sql_tokens import SqlError
from edgesim.config.stream_schema import read_schema
from edgesim.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_]{1,128}")
_SQL_KEYS = {"sql", "sql_file"}
ENGINE_LIBRARIES = ("datafusion", "pyarrow", "jsonpath_rfc9535")
TABLE_LIBRARIES = ("pyiceberg",)
BUFFER_BYTES_MAX = 1_000_000_000
COUNT_MAX = 20
"""Streams, sinks and pipelines of an account on Cloudflare: so many of each."""


class HttpIngestConfig(msgspec.Struct, forbid_unknown_fields=True):
    """HTTP ingest of a stream: whether a token is needed, and the origins of web pages."""

    enabled: bool = True
    auth: bool = False
    cors: list[str] = []


class RecordStreamConfig(msgspec.Struct, forbid_unknown_fields=True):
    """``[streams.NAME]``: ``schema`` is a schema file; without one the stream is unstructured.

    ``id`` is the stream's id on Cloudflare; deployed wrangler files refer to a stream by it.
    ``buffer_bytes_max`` limits the records that wait for their sinks.
    """

    id: str | None = None
    schema: str | None = None
    http: HttpIngestConfig = msgspec.field(default_factory=HttpIngestConfig)
    buffer_bytes_max: Annotated[int, msgspec.Meta(ge=1)] = BUFFER_BYTES_MAX


class SqlPipelineConfig(msgspec.Struct, forbid_unknown_fields=True):
    """``[pipelines.NAME]`` with SQL, in the file itself or in another one."""

    sql: str | None = None
    sql_file: str | None = None


class StreamSpec(msgspec.Struct, frozen=True):
    """A stream with the fields of its schema; an unstructured stream has none."""

    name: str
    config: RecordStreamConfig
    fields: list[Field]


class SqlPipelineSpec(msgspec.Struct, frozen=True):
    """A pipeline with SQL; the text is in ``file``, under ``key`` unless it is the whole file."""

    name: str
    sql: str
    file: Path
    key: str
    statements: list[InsertInto]

    def error_at(self, place: tuple[int, int], problem: str) -> ConfigError:
        """An error at a line and a column of the text."""
        return located(self.file, self.key, SqlError(place, problem))


class Dataflow(msgspec.Struct, frozen=True):
    """The streams, sinks and pipelines with SQL of a project, by name."""

    streams: dict[str, StreamSpec] = {}
    sinks: dict[str, SinkConfig] = {}
    pipelines: dict[str, SqlPipelineSpec] = {}

    def ids(self) -> dict[str, str]:
        """Names of streams by their id on Cloudflare."""
        return {spec.config.id: name for name, spec in self.streams.items() if spec.config.id}


def take_sql_pipelines(raw: dict[str, Any]) -> dict[str, Any]:
    """Remove the pipelines with SQL from the tables of edgesim.toml, and return them."""
    tables = raw.get("pipelines")
    if not isinstance(tables, dict):
        return {}
    taken = {
        name: table
        for name, table in tables.items()
        if isinstance(table, dict) and _SQL_KEYS & table.keys()
    }
    raw["pipelines"] = {name: table for name, table in tables.items() if name not in taken}
    return taken


def read_dataflow(
    file: Path,
    streams: Mapping[str, RecordStreamConfig],
    sinks: dict[str, SinkConfig],
    pipelines: Mapping[str, SqlPipelineConfig],
    legacy: Mapping[str, PipelineConfig],
) -> Dataflow:
    """Read the files that the tables name, and check all references; ConfigError names the key."""
    for kind, names in (("streams", streams), ("sinks", sinks), ("pipelines", pipelines)):
        if len(names) > COUNT_MAX:
            problem = f"there are {len(names)}; an account on Cloudflare has at most {COUNT_MAX}"
            raise ConfigError(file, kind, problem)
        for name in names:
            if not _NAME.fullmatch(name):
                problem = "a name has letters, digits and underscores only"
                raise ConfigError(file, f"{kind}.{name}", problem)
    for name in streams:
        if name in legacy:
            problem = f"[pipelines.{name}] with a bucket has that name too; a binding could be both"
            raise ConfigError(file, f"streams.{name}", problem)
    _check_ids(file, streams, legacy)
    check_sinks(file, sinks)
    flow = Dataflow(
        {name: _stream(file, name, config) for name, config in streams.items()},
        sinks,
        {name: _pipeline(file, name, config) for name, config in pipelines.items()},
    )
    for spec in flow.pipelines.values():
        _check_references(spec, flow)
    return flow


def _check_ids(
    file: Path, streams: Mapping[str, RecordStreamConfig], legacy: Mapping[str, PipelineConfig]
) -> None:
    taken = [*(each.id for each in streams.values()), *(each.id for each in legacy.values())]
    for name, config in streams.items():
        if config.id is None:
            continue
        if not is_stream_id(config.id):
            problem = f"{config.id!r} is no id of a stream: 32 hexadecimal digits"
            raise ConfigError(file, f"streams.{name}.id", problem)
        if taken.count(config.id) > 1:
            problem = "is another stream's too; each stream has an id of its own"
            raise ConfigError(file, f"streams.{name}.id", problem)


def _stream(file: Path, name: str, config: RecordStreamConfig) -> StreamSpec:
    fields = []
    if config.schema is not None:
        fields = read_schema(_beside(file, f"streams.{name}.schema", config.schema))
    return StreamSpec(name, config, fields)


def _pipeline(file: Path, name: str, config: SqlPipelineConfig) -> SqlPipelineSpec:
    key = f"pipelines.{name}"
    if config.sql is not None and config.sql_file is not None:
        raise ConfigError(file, key, "has both `sql` and `sql_file`; keep one of them")
    if config.sql_file is None:
        text, place, inside = config.sql or "", file, f"{key}.sql"
    else:
        place = _beside(file, f"{key}.sql_file", config.sql_file)
        text, inside = read_text(place), ""
    try:
        statements = read_statements(text)
    except SqlError as error:
        raise located(place, inside, error) from error
    return SqlPipelineSpec(name, text, place, inside, statements)


def needs_engine(statement: InsertInto, sink: SinkConfig) -> bool:
    """True if the SQL engine has to run the statement."""
    return not statement.takes_all or sink.format == "parquet"


def has_engine() -> bool:
    """True if the libraries of the SQL engine are installed."""
    return _has(ENGINE_LIBRARIES)


def _has(libraries: Collection[str]) -> bool:
    return all(importlib.util.find_spec(name) for name in libraries)


def located(file: Path, key: str, error: SqlError) -> ConfigError:
    """The error with its place: in a file of its own the position is the key."""
    if key:
        return ConfigError(file, key, str(error))
    line, column = error.place
    return ConfigError(file, f"line {line}, column {column}", error.problem)


def _beside(file: Path, key: str, name: str) -> Path:
    path = file.parent / name
    if not path.is_file():
        raise ConfigError(file, key, f"there is no file {name!r} in {file.parent}")
    return path


def _check_references(spec: SqlPipelineSpec, flow: Dataflow) -> None:
    for each in spec.statements:
        _check_known(spec, "sink", each.sink, each.sink_place, flow.sinks)
        _check_known(spec, "stream", each.stream, each.stream_place, flow.streams)
        if needs_engine(each, flow.sinks[each.sink]) and not has_engine():
            problem = "SQL beyond SELECT * and Parquet need: pip install 'edgesim[pipelines]'"
            raise spec.error_at(each.place, problem)
        if flow.sinks[each.sink].is_catalog and not _has(TABLE_LIBRARIES):
            problem = "a sink with an Iceberg table needs: pip install 'edgesim[iceberg]'"
            raise spec.error_at(each.sink_place, problem)


def _check_known(
    spec: SqlPipelineSpec,
    kind: str,
    name: str,
    place: tuple[int, int],
    known: Collection[str],
) -> None:
    if name in known:
        return
    same = [each for each in known if each.lower() == name.lower()]
    near = difflib.get_close_matches(name, known, 1)
    if same:
        hint = f'SQL reads names in lower case; write "{same[0]}" in double quotes'
    elif near:
        hint = f"did you mean {near[0]!r}?"
    else:
        hint = f"known: {', '.join(known) or 'none'}"
    problem = f"there is no {kind} named {name!r}; {hint}"
    raise spec.error_at(place, problem)

"""edgesim pipelines: run a pipeline over records of a file, and compare its rows.

Nothing is started, buffered or stored: the records go through the stream's schema and the SQL, and
the rows are printed. With --expect the rows are compared with a file; exit code 1 if they differ.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import anyio
import msgspec

from edgesim.cli.arguments import PROJECT_HELP, add_files, find_project
from edgesim.clock import Clock
from edgesim.config.dataflow import Dataflow, SqlPipelineSpec
from edgesim.config.sql_limits import SqlLimits
from edgesim.errors import ConfigError, ExpectationError, UsageError
from edgesim.pipelines.dry_run import DryRun, dry_run
from edgesim.pipelines.sql.engine import SqlEngine
from edgesim.scratch import scratch_folder

CELL_CHARS_MAX = 40
T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim pipelines``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "run a pipeline over records of a file"
    action = actions.add_parser("run", help=summary, description=f"{summary.capitalize()}.")
    action.add_argument("name", help="name of a pipeline with SQL")
    action.add_argument("--project", metavar="FOLDER", help=PROJECT_HELP)
    add_files(action)
    action.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="FILE",
        help="records, one JSON object per line",
    )
    action.add_argument("--stream", help="stream of the records, if the pipeline reads several")
    action.add_argument("--expect", type=Path, metavar="FILE", help="file with the expected rows")
    action.add_argument("--update", action="store_true", help="rewrite the file of --expect")
    action.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(arguments: argparse.Namespace) -> int:
    """Print the rows, or compare them with the expected ones."""
    if arguments.update and arguments.expect is None:
        raise UsageError("--update rewrites the file of --expect; name one")
    project = find_project(arguments)
    flow = project.dataflow
    spec = _known("pipeline with SQL", arguments.name, flow.pipelines)
    stream = _stream(spec, arguments.stream)
    result = anyio.run(_run, flow, spec, stream, arguments.input, project.account.sql)
    if arguments.update:
        arguments.expect.write_bytes(_shown(result))
        print(f"{arguments.expect}: {_summary(result)}")
    elif arguments.expect is not None:
        _compare(arguments.expect, result)
        print(f"as expected: {_summary(result)}")
    elif arguments.json:
        print(_shown(result).decode(), end="")
    else:
        for line in _tables(result):
            print(line)
    return 0


async def _run(
    flow: Dataflow, spec: SqlPipelineSpec, stream: str, file: Path, limits: SqlLimits
) -> DryRun:
    with scratch_folder("sql") as folder:
        engine = SqlEngine(folder, limits)
        try:
            return await dry_run(flow, spec, stream, _records(file), engine, Clock())
        finally:
            await engine.close()


def _known(kind: str, name: str, there: Mapping[str, T]) -> T:
    if name in there:
        return there[name]
    near = difflib.get_close_matches(name, there, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(there) or 'none'}"
    raise UsageError(f"there is no {kind} named {name!r}; {hint}")


def _stream(spec: SqlPipelineSpec, given: str | None) -> str:
    streams = {each.stream: each.stream for each in spec.statements}
    if given is not None:
        return _known(f"stream of pipeline {spec.name}", given, streams)
    if len(streams) > 1:
        raise UsageError(f"{spec.name} reads {', '.join(streams)}; name one with --stream")
    return next(iter(streams))


def _records(file: Path) -> Iterator[dict[str, Any]]:
    decoder = msgspec.json.Decoder(dict[str, Any])
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    yield decoder.decode(line)
                except (msgspec.DecodeError, ValueError) as error:
                    problem = f"{error}; a line is one JSON object"
                    raise ConfigError(file, f"line {number}", problem) from error
    except OSError as error:
        raise ConfigError(file, None, f"cannot be read: {error.strerror}") from error


def _shown(result: DryRun) -> bytes:
    """The result as text for a file: one row on a line, so that differences are lines."""
    lines = [b"{", b'"dropped": [', *_listed(result.dropped), b"],", b'"sinks": [']
    for index, each in enumerate(result.statements):
        columns = {column.name: column.type for column in each.columns}
        more = b"," if index + 1 < len(result.statements) else b""
        lines += [b'{"sink": %s,' % msgspec.json.encode(each.sink)]
        lines += [b' "columns": %s,' % msgspec.json.encode(columns)]
        lines += [b' "rows": [', *_listed(each.rows), b"]}" + more]
    return b"\n".join([*lines, b"]", b"}", b""])


def _listed(values: list[Any]) -> list[bytes]:
    encoded = [b"  " + msgspec.json.encode(each) for each in values]
    return [line + b"," for line in encoded[:-1]] + encoded[-1:]


def _compare(file: Path, result: DryRun) -> None:
    """Print the difference; ExpectationError if there is one."""
    try:
        expected = file.read_text("utf-8")
    except OSError as error:
        problem = f"cannot be read: {error.strerror}; --update writes it"
        raise ConfigError(file, None, problem) from error
    got = _shown(result).decode()
    if expected == got:
        return
    lines = difflib.unified_diff(
        expected.splitlines(), got.splitlines(), "expected", "got", lineterm="", n=1
    )
    sys.stdout.writelines(f"{line}\n" for line in lines)
    raise ExpectationError(f"{file}: other rows than expected; --update rewrites the file")


def _summary(result: DryRun) -> str:
    written = [f"{len(each.rows)} into {each.sink}" for each in result.statements]
    dropped = f"{len(result.dropped)} dropped"
    return f"{result.records} records, {', '.join([*written, dropped])}"


def _tables(result: DryRun) -> Iterator[str]:
    for each in result.statements:
        yield f"{each.sink}: {len(each.rows)} rows"
        head = [column.name for column in each.columns]
        types = [column.type + ("" if column.nullable else "!") for column in each.columns]
        body = [[_cell(value) for value in row.values()] for row in each.rows]
        yield from _aligned([head, types, *body])
        yield ""
    for drop in result.dropped:
        place = drop.column or f"into {drop.sink}: {drop.problem}"
        yield f"dropped record {drop.record}: {drop.reason} ({place})"
    yield _summary(result)


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    text = " ".join(text.split())
    return text if len(text) <= CELL_CHARS_MAX else f"{text[: CELL_CHARS_MAX - 3]}..."


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield f"  {'  '.join(cells)}".rstrip()

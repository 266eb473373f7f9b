"""The tables of the reference are those of the code: keys, counters, metrics, endpoints."""

import inspect
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
import tomli

from edgesim.cli import EXIT_CODES
from edgesim.cli.mcp.tools import TOOLS
from edgesim.config.project import AccountFile
from edgesim.dev import admin, metrics
from tests.docs.variables import known_variables
from tests.processes import WORKERS, dev
from tests.test_tidy import ROOT

REFERENCE = ROOT / "docs" / "reference"
SECTIONS = {
    "Top level": (),
    "[pipelines.NAME]": ("pipelines",),
    "[[pipelines.NAME.schema]]": ("pipelines", "schema"),
    "[streams.NAME]": ("streams",),
    "[streams.NAME.http]": ("streams", "http"),
    "[sinks.NAME]": ("sinks",),
    "[[r2.BUCKET.notifications]]": ("r2", "notifications"),
    "[queues.NAME]": ("queues",),
    "[queues.NAME.pull]": ("queues", "pull"),
    "[clickhouse]": ("clickhouse",),
    "[outbound]": ("outbound",),
    "[tail]": ("tail",),
    "[server]": ("server",),
    "[backends]": ("backends",),
}
"""Heading of configuration.md -> the keys of edgesim.toml that lead to its table."""


def _section(page: str, heading: str) -> str:
    text = (REFERENCE / page).read_text()
    assert f"## {heading}\n" in text, f"{page} has no heading {heading!r}"
    return text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]


def _rows(text: str) -> Iterator[list[str]]:
    """Cells of the rows of a section's tables, without their heads."""
    lines = [*text.splitlines(), ""]
    for line, following in pairwise(lines):
        if line.startswith("| ") and "| ---" not in (line[:5], following[:5]):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("| "))]


def _names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def _structs(hint: Any) -> Iterator[type[msgspec.Struct]]:
    """The structs that a type names, such as that of a table's values."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
    for inner in get_args(hint):
        yield from _structs(inner)


def _struct(path: tuple[str, ...]) -> type[msgspec.Struct]:
    kind: type[msgspec.Struct] = AccountFile
    for key in path:
        [kind] = _structs(get_type_hints(kind)[key])
    return kind


def _defaults(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The default of each key; NODEFAULT for a required one, a struct for a table."""
    return {
        field.encode_name: field.default
        if field.default_factory is msgspec.NODEFAULT
        else field.default_factory()
        for field in msgspec.structs.fields(kind)
    }


@pytest.mark.parametrize("heading", SECTIONS)
def test_keys_of_edgesim_toml(heading: str):
    """configuration.md has each key of the section with its default, and no other."""
    documented = {}
    for row in _rows(_section("configuration.md", heading)):
        if len(row) == 4 and (names := _names(row[0])):
            documented[names[0]] = row[2]
    expected = _defaults(_struct(SECTIONS[heading]))
    assert set(documented) == set(expected)
    for key, shown in documented.items():
        assert _default(shown) == _plain(expected[key]), key


def _default(shown: str) -> Any:
    if not (literals := _names(shown)):
        return {"required": msgspec.NODEFAULT}.get(shown)
    return tomli.loads(f"value = {literals[0]}")["value"]


def _plain(value: Any) -> Any:
    """A default as a page shows it: nothing for a table with keys of its own."""
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, msgspec.Struct) else value


def test_environment_variables():
    """configuration.md has each variable that edgesim reads, and no other."""
    rows = _rows(_section("configuration.md", "Environment variables"))
    documented = {name for row in rows for name in _names(row[0])}
    assert documented == known_variables()


def test_exit_codes():
    """exit-codes.md has each code that the commands name."""
    rows = _rows((REFERENCE / "exit-codes.md").read_text())
    documented = {row[0] for row in rows if row[0].isdigit()}
    assert documented >= set(re.findall(r"\d+", EXIT_CODES))


def test_admin_endpoints():
    """admin-api.md has each path that the server routes."""
    text = (REFERENCE / "admin-api.md").read_text()
    parameters = inspect.signature(admin.admin_app).parameters
    app: Any = admin.admin_app(**dict.fromkeys(parameters))  # type: ignore[arg-type]
    assert [route.path for route in app.routes if route.path not in text] == []


def test_tools_of_mcp():
    """connect-an-editor.md has each tool of ``edgesim mcp``, and no other."""
    page = (ROOT / "docs" / "how-to" / "connect-an-editor.md").read_text()
    assert [_names(row[0])[0] for row in _rows(page)] == list(TOOLS)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], str]]:
    """Stats and metrics of a project through which an event has gone."""
    state = tmp_path_factory.mktemp("state")
    event = {"event": "kill", "player_id": "p1", "ts": 1767225600000}
    with dev(WORKERS, state) as server:
        assert server.post(event) == 200
        server.drain()
        status, text = server.request("/cdn-cgi/edgesim/metrics", method="GET")
        assert status == 200
        yield server.stats(), text.decode()


def test_counters_of_stats(shown: tuple[dict[str, Any], str]):
    """stats.md has each counter of a running project, those that are metrics, and no other."""
    documented = {
        re.sub(r"\b[A-Z]+\b", "*", name)
        for row in _rows(_section("stats.md", "Stats"))
        for name in _names(row[0])
    }
    exported = {
        f"{stage}.*.{name}" if stage in metrics._LABELS else f"{stage}.{name}"
        for stage, families in metrics._FAMILIES.items()
        for name in families
    }
    assert documented == exported | set(_counters(shown[0]))


def _counters(stats: dict[str, Any]) -> Iterator[str]:
    """Paths of the counters; ``*`` for names of Workers, buckets, queues, pipelines, outcomes."""
    named = {"invocations": 2, "cpu_ms": 1}
    for stage, content in json.loads(json.dumps(stats)).items():
        depth = 1 if stage in metrics._LABELS else named.get(stage, 0)
        paths: list[tuple[str, Any]] = [(stage, content)]
        for _ in range(depth):
            paths = [(f"{path}.*", each) for path, inner in paths for each in inner.values()]
        for path, inner in paths:
            is_leaf = depth and not isinstance(inner, dict)
            yield from [path] if is_leaf else [f"{path}.{name}" for name in inner]


def test_names_of_metrics(shown: tuple[dict[str, Any], str]):
    """stats.md has each metric, those of a running project and those that need a fault."""
    rows = _rows(_section("stats.md", "Metrics"))
    documented = {name for row in rows for name in _names(row[0])}
    rendered = set(re.findall(r"^# TYPE (\S+)", shown[1], re.MULTILINE))
    all_stages = {family.name for stage in metrics._FAMILIES.values() for family in stage.values()}
    assert documented == rendered | all_stages


def test_pages_are_wrapped():
    """Prose of the documentation has lines of at most 120 characters; tables and code may not."""
    long = []
    for page in Path(ROOT / "docs").rglob("*.md"):
        fenced = False
        for number, line in enumerate(page.read_text().splitlines(), 1):
            fenced ^= line.startswith("```")
            if len(line) > 120 and not fenced and not line.startswith("|"):
                long.append(f"{page.name}:{number}")
    assert long == []

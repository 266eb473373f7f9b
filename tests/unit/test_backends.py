"""Libraries that a project's stores import on first use."""

import sys

import pytest

from edgesim.backends import require_libraries
from edgesim.config import load_project
from edgesim.config.project import Overrides
from edgesim.errors import ConfigError

WRANGLER = 'name = "w"\nmain = "w.py"\ncompatibility_date = "2026-10-01"\n'


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Load a project with these lines in its files, where chdb is not installed."""
    monkeypatch.setitem(sys.modules, "chdb", None)

    def load(account="", wrangler="", **backends):
        (tmp_path / "w").mkdir()
        (tmp_path / "w" / "w.py").write_text("")
        (tmp_path / "w" / "wrangler.toml").write_text(WRANGLER + wrangler)
        (tmp_path / "schema.sql").write_text("SELECT 1")
        (tmp_path / "edgesim.toml").write_text('workers = ["w"]\n' + account)
        return load_project(tmp_path, Overrides(**backends))

    return load


@pytest.mark.parametrize(
    ("account", "wrangler"),
    [
        ('[clickhouse]\nschema = "schema.sql"\n', ""),
        ("", '[[services]]\nbinding = "DB"\nservice = "clickhouse"\n'),
        ('[clickhouse]\nservice = "db"\n', '[[services]]\nbinding = "DB"\nservice = "db"\n'),
    ],
)
def test_a_missing_engine_is_refused_where_it_is_used(project, account, wrangler):
    """A schema or a binding needs the engine; the line has file, key and the command."""
    with pytest.raises(
        ConfigError, match=r"backends\.clickhouse: the embedded .* pip install --no"
    ):
        require_libraries(project(account, wrangler))


def test_a_missing_engine_is_no_problem_where_it_is_not_used(project):
    """A project without ClickHouse needs no engine."""
    require_libraries(project())


def test_a_missing_engine_is_no_problem_beside_a_server(project):
    """A project on a server needs no engine."""
    schema = '[clickhouse]\nschema = "schema.sql"\n'
    require_libraries(project(schema, clickhouse="clickhouse+http://127.0.0.1:1"))

"""The ``edgesim`` fixture: a project in virtual time, for its own tests.

    async def test_a_kill_arrives(edgesim):
        answer = await edgesim.fetch(json={"event": "kill", "player_id": "p1", "ts": 0})
        assert answer.status == 200
        await edgesim.advance(92)
        assert await edgesim.sql("SELECT count() FROM events") == [[1]]

A test that uses the fixture is a coroutine and runs on its own event loop, on which 90 s pass
immediately. Every test begins with empty stores. ``@pytest.mark.edgesim(project=..., seed=...,
isolation=..., faults=..., start=...)`` sets options of one test; ``edgesim_project`` in pytest's
configuration is the folder of edgesim.toml.

pytest loads this module wherever edgesim is installed, so it imports the rest of edgesim on use.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from edgesim.replay.testing import Engine, VirtualProject

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option ``edgesim_project``."""
    parser.addini("edgesim_project", "folder of edgesim.toml (default: the rootdir, or workers/)")


def pytest_configure(config: pytest.Config) -> None:
    """Register the ``edgesim`` marker."""
    config.addinivalue_line(
        "markers",
        "edgesim(project, seed, isolation, faults, start): how the `edgesim` fixture is made",
    )


@pytest.fixture(scope="session")
def edgesim_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The database engine of all tests, started by the first statement."""
    from edgesim.replay.testing import Engine

    engine = Engine(tmp_path_factory.mktemp("edgesim") / "clickhouse")
    yield engine
    engine.close()


@pytest.fixture
def edgesim(
    request: pytest.FixtureRequest, tmp_path: Path, edgesim_engine: Engine
) -> VirtualProject:
    """The project under test."""
    from edgesim.replay.testing import VirtualProject

    if not inspect.iscoroutinefunction(inspect.unwrap(request.function)):
        pytest.fail("a test with the `edgesim` fixture must be `async def`", pytrace=False)
    marker = request.node.get_closest_marker("edgesim")
    options = dict(marker.kwargs) if marker else {}
    folder = options.pop("project", None) or request.config.getini("edgesim_project")
    return VirtualProject(
        _folder(request.config.rootpath, folder),
        tmp_path / ".edgesim",
        edgesim_engine,
        f"test_{next(_numbers)}",
        **options,
    )


def _folder(root: Path, named: str) -> Path:
    if named:
        return root / named
    return root if (root / "edgesim.toml").is_file() else root / "workers"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test that uses the fixture on its project's event loop."""
    project: Any = pyfuncitem.funcargs.get("edgesim")
    test = inspect.unwrap(pyfuncitem.obj)  # pytest-asyncio's auto mode has already wrapped it
    if project is None or not inspect.iscoroutinefunction(test):
        return None
    names = pyfuncitem._fixtureinfo.argnames  # noqa: SLF001 (pytest's own implementation reads it too)
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    project.run(test, arguments)
    return True

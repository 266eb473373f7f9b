"""Watching a project's files."""

import shutil
from itertools import count
from time import monotonic

import anyio
import pytest

from edgesim.config import load_project
from edgesim.config.project import Overrides
from edgesim.dev.reload import changes
from tests.processes import WORKERS

pytestmark = pytest.mark.anyio

AWATCH_SECONDS = 5.0
"""Seconds by which the library itself delays the end of a watch."""


async def test_a_cancelled_watch_ends_soon():
    """Cancelling a watch ends it without the library's delay."""
    began = monotonic()
    with anyio.move_on_after(0.3):
        async for found in changes(load_project(WORKERS)):
            pytest.fail(f"nothing was saved, but {found} changed")
    assert monotonic() - began < AWATCH_SECONDS / 2


async def test_the_state_of_another_command_is_not_a_source(tmp_path):
    """With --state elsewhere, files in the default state folder change nothing; sources do."""
    root = tmp_path / "project"
    shutil.copytree(WORKERS, root, ignore=shutil.ignore_patterns(".edgesim"))
    project = load_project(root, Overrides(state=tmp_path / "state"))
    states = [folder / ".edgesim" for folder in (root, root / "tail")]
    for state in states:
        state.mkdir()
    async with anyio.create_task_group() as tasks:

        async def write() -> None:
            while True:  # again and again, since a watch misses what comes before it has begun
                for state in states:
                    (state / "owner.json").write_text("{}")
                (root / "tail" / "tail.py").touch()
                await anyio.sleep(0.1)

        tasks.start_soon(write)
        async for found in changes(project):
            assert found == {root / "tail" / "tail.py"}
            break
        tasks.cancel_scope.cancel()


async def test_an_installed_package_is_a_change(tmp_path):
    """A package folder that is moved into python_modules is reported."""
    root = tmp_path / "project"
    shutil.copytree(WORKERS, root, ignore=shutil.ignore_patterns(".edgesim"))
    packages = root / "tail" / "python_modules"
    packages.mkdir()
    async with anyio.create_task_group() as tasks:

        async def install() -> None:
            for number in count():  # again and again, since a watch misses what comes before
                built = tmp_path / "built"
                built.mkdir()
                (built / "__init__.py").write_text("")
                built.rename(packages / f"package{number}")
                await anyio.sleep(0.1)

        tasks.start_soon(install)
        async for found in changes(load_project(root)):
            assert {file.parent for file in found} == {packages}
            break
        tasks.cancel_scope.cancel()

"""The `edgesim` fixture in its own project, with common pytest plugins."""

import shutil
import subprocess
import sys

import pytest

from tests.processes import ROOT

WRONG_NAMES = """
import pytest

from edgesim.errors import UsageError


async def test_unknown_names(edgesim):
    with pytest.raises(UsageError, match="known: "):
        await edgesim.records("evnts")
    with pytest.raises(UsageError, match="known: "):
        edgesim.bucket("evnts")
    with pytest.raises(UsageError, match="known: "):
        edgesim.queue("ingst")


class TestInAClass:
    async def test_virtual_time(self, edgesim):
        before = edgesim.now
        await edgesim.advance(3600)
        assert edgesim.now - before >= 3600
"""


@pytest.mark.parametrize(
    "options", [("-p", "no:asyncio"), ("--asyncio-mode=strict",), ("--asyncio-mode=auto",)], ids=str
)
def test_the_fixture_gets_on_with_pytest_asyncio(options, tmp_path):
    """Without the plugin, and in both of its modes, every test runs in virtual time and passes."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "examples" / "pytest-project", project)
    (project / "tests" / "test_names.py").write_text(WRONG_NAMES)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout

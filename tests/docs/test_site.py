"""The documentation site builds without a warning, and all links between files lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_tidy import ROOT, TRACKED

PAGES = [ROOT / name for name in TRACKED if name.endswith(".md") and (ROOT / name).is_file()]
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)\s]*)?\)")


@pytest.mark.timeout(600)
def test_the_site_builds_without_warnings(tmp_path: Path):
    """Sphinx finds no missing page, heading or table of contents."""
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    build = subprocess.run(
        [*command, ROOT / "docs", tmp_path / "html", "-d", tmp_path / "doctrees"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    assert (tmp_path / "html" / "reference" / "commands.html").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path):
    """Each relative link of a Markdown file is a file or folder of the repository."""
    found = LINK.findall(page.read_text())
    assert [link for link in found if not (page.parent / link).exists()] == []

"""Finds the Node and the npm packages that ``make portability`` installs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
MAJOR_MIN = 22
"""Lowest major version of Node that wrangler supports."""


def node_for(package: str) -> str:
    """Return the path of a node that can run ``package``; without one skip, or fail in CI."""
    reason = _missing(package)
    if reason is None:
        return str(_node())
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _missing(package: str) -> str | None:
    if not (MODULES / package).is_dir():
        return f"{package} is not installed (make portability)"
    node = _node()
    if node is None:
        return "no Node here (make portability)"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").partition(".")[0]) < MAJOR_MIN:
        return f"Node {version.strip()} is older than {MAJOR_MIN} (make portability)"
    return None


def _node() -> str | None:
    own = next(iter(sorted(MODULES.glob("node-*/bin/node"))), None)
    return str(own) if own else shutil.which("node")

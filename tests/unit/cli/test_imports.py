"""Modules that a command imports before it runs."""

import subprocess
import sys

import pytest

from edgesim.cli import COMMANDS

PROGRAM = """
import sys
from edgesim.cli import build_parser
build_parser([sys.argv[1]])
print("structlog" in sys.modules, [name for name in sys.modules if name.split(".")[0] == "rich"])
import rich
print(rich.__name__)
"""


@pytest.mark.parametrize("command", ["dev", "replay", "sql"])
def test_a_command_starts_without_rich(command):
    """structlog does not import rich, and worker code can do so afterwards."""
    assert command in COMMANDS
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, command], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["True []", "rich"]

"""The CPU limit of one invocation on a shared loop: its signal may arrive at any moment."""

import json
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT


def test_the_signal_may_come_at_any_line():
    """The signal may arrive at any line of the loop's code; process and neighbours survive."""
    ran = subprocess.run(
        [sys.executable, Path(__file__).with_name("ticks.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    rounds = found["rounds"]
    assert rounds > 100
    assert found["neighbour"] == {"ok": rounds}
    assert sum(found["spent"].values()) == rounds
    assert found["spent"]["exceededCpu"] > rounds / 2

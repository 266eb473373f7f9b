"""Limits of the SQL and Iceberg processes where the kernel enforces none."""

import os
import subprocess
import sys

import pytest

from edgesim.pipelines.process_limits import OUT_OF_MEMORY
from edgesim.system import VARIABLE

PROGRAM = """
import resource
import sys
from edgesim.pipelines.process_limits import ProcessLimits
from edgesim.system import peak_memory_bytes

# Linux counts the parent's memory at the time of the fork as a part of the peak.
before = peak_memory_bytes(resource.getrusage(resource.RUSAGE_SELF))
limits = ProcessLimits(64 << 20)
for megabytes in map(int, sys.argv[1:]):
    with limits.of_a_request(60.0):
        kept = bytearray((megabytes << 20) + (before if megabytes > 64 else 0))
        while megabytes > 64:  # until the process is ended, or the test's time is over
            pass
    del kept
print("served")
"""


@pytest.mark.parametrize(
    ("megabytes", "status"), [([1, 32], 0), ([300], OUT_OF_MEMORY), ([32, 300], OUT_OF_MEMORY)]
)
def test_a_process_that_grows_is_ended(megabytes, status):
    """A request within its memory is served; one beyond it ends the process, with the reason."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, megabytes)],
        env={**os.environ, VARIABLE: "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert done.stdout == ("" if status else "served\n")

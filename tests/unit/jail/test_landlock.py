"""Landlock's scopes without seccomp, as on a machine that does not have it."""

import os
import subprocess
import sys

import pytest

from edgesim.jail import landlock

pytestmark = pytest.mark.skipif(
    landlock.version() < 6, reason="this kernel's Landlock has no scopes"
)
READ = [sys.base_prefix, "/lib", "/usr"]


def confined(code: str) -> str:
    """Run the code in a process under Landlock; return its output."""
    script = f"import os, socket\nfrom edgesim.jail import landlock\nlandlock.restrict({READ!r})\n"
    return subprocess.run(
        [sys.executable, "-c", script + code], capture_output=True, text=True, check=True
    ).stdout.strip()


TRY = """
try:
    {}
    print("done")
except PermissionError:
    print("refused")
"""


def test_no_signal_leaves_the_domain():
    """Signalling a process outside is refused, even signal 0; signalling a child is allowed."""
    assert confined(TRY.format(f"os.kill({os.getpid()}, 0)")) == "refused"
    child = "import signal\npid = os.fork()\nif pid == 0:\n    signal.pause()\n"
    assert confined(child + TRY.format("os.kill(pid, 9)")) == "done"


def test_no_signal_by_the_owner_of_a_descriptor():
    """A process outside gets no signal by F_SETOWN on a descriptor either."""
    victim = subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert victim.stdout is not None
    victim.stdout.readline()
    confined(
        "import fcntl\nread, write = os.pipe()\n"
        f"fcntl.fcntl(read, fcntl.F_SETOWN, {victim.pid})\nfcntl.fcntl(read, 10, 9)\n"
        "fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC)\nos.write(write, b'x')\n"
    )
    victim.communicate(b"\n", timeout=30)
    assert victim.returncode == 0


def test_abstract_sockets_of_others_are_out_of_reach():
    """Connecting to an abstract socket outside the domain is refused."""
    import socket

    with socket.socket(socket.AF_UNIX) as service:
        name = f"\0edgesim-test-{os.getpid()}"
        service.bind(name)
        service.listen()
        assert confined(TRY.format(f"socket.socket(socket.AF_UNIX).connect({name!r})")) == "refused"

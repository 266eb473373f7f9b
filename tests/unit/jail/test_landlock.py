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


DROP_CACHES = "/proc/sys/vm/drop_caches"
KEPT = """
import os, subprocess, sys
from edgesim.jail import landlock
read, write = os.pipe()
child = os.fork()
if child == 0:  # outside of the jail
    os.read(read, 1)
    with open({drop!r}, "w") as file:
        file.write("2")
    os._exit(0)
landlock.restrict([f"/proc/{{os.getpid()}}", "/proc/meminfo", *{read!r}], execute={read!r})
os.write(write, b"x")
os.waitpid(child, 0)
look = "print(all(open(each).read() for each in ('/proc/self/maps', '/proc/meminfo')))"
{run}
"""


@pytest.mark.skipif(not os.access(DROP_CACHES, os.W_OK), reason="only root can drop caches")
@pytest.mark.parametrize("run", ["exec(look)", "os.execv(sys.executable, ['python', '-c', look])"])
def test_files_of_proc_stay_readable_when_memory_is_short(run):
    """The kernel drops inodes of /proc when it needs memory; what was allowed stays allowed."""
    code = KEPT.format(drop=DROP_CACHES, read=READ, run=run)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")

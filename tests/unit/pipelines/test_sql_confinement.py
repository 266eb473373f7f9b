"""The SQL process's confinement: code in it reaches nothing but its libraries and its folder."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgesim.jail import landlock, seccomp

pytestmark = pytest.mark.skipif(
    not (landlock.version() and seccomp.available()), reason="this kernel has no such guards"
)

ATTEMPTS = """
import ctypes, json, os, resource, signal, socket, subprocess, sys, threading
from pathlib import Path
from edgesim.pipelines.confinement import confine
scratch, rows, secret = sys.argv[1:4]
inherited, parent = int(sys.argv[4]), int(sys.argv[5])
confine(readable=rows, writable=scratch)
libc = ctypes.CDLL(None, use_errno=True)


def syscall(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def clone(flags):
    pid = libc.syscall(56, flags, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), "refused")


ATTEMPTS = {
    "read a file": lambda: Path(secret).read_text(),
    "read a link to a file": lambda: (
        os.symlink(secret, scratch + "/link"), Path(scratch + "/link").read_text()),
    "list the home": lambda: os.listdir(os.path.expanduser("~")),
    "read the environment of edgesim": lambda: Path(f"/proc/{parent}/environ").read_text(),
    "read a system file": lambda: Path("/etc/passwd").read_text(),
    "write beside its folder": lambda: Path(scratch + "/../x").write_text("x"),
    "write where it reads": lambda: Path(rows, "x").write_text("x"),
    "write what it reads": lambda: Path(rows, "some").write_text("x"),
    "remove what it reads": lambda: os.unlink(rows + "/some"),
    "write a library": lambda: Path(os.__file__).with_name("x.py").write_text("x"),
    "remove a file": lambda: os.unlink(secret),
    "link a file": lambda: os.link(secret, scratch + "/hard"),
    "open a socket": lambda: socket.socket(),
    "open a local socket": lambda: socket.socket(socket.AF_UNIX),
    "a pair of sockets": lambda: socket.socketpair(),
    "look up a name": lambda: socket.getaddrinfo("localhost", 80),
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "start a process": lambda: subprocess.run(["/bin/true"]),
    "fork": lambda: os.fork() or os._exit(0),
    "clone": lambda: clone(17),
    "vfork": lambda: clone(0x4111),
    "signal its parent": lambda: os.kill(parent, 0),
    "signal a thread": lambda: syscall(200, parent, 0),
    "open its parent": lambda: os.pidfd_open(parent),
    "trace": lambda: syscall(101, 16, parent, 0, 0),
    "read memory": lambda: syscall(310, parent, 0, 0, 0, 0, 0),
    "io_uring": lambda: syscall(425, 1, 0),
    "namespaces": lambda: syscall(272, 0x10000000),
    "a file in memory": lambda: os.memfd_create("x"),
}
found = {}
for name, attempt in ATTEMPTS.items():
    try:
        attempt()
        found[name] = ""
    except Exception as error:
        found[name] = type(error).__name__
Path(scratch, "own").write_text(Path(rows, "some").read_text())
thread = threading.Thread(target=lambda: None)
thread.start()
thread.join()
print(json.dumps(found))
"""


def test_nothing_else_is_in_reach(tmp_path: Path):
    """Each attempt is refused; threads, and files in its own folders, are not."""
    scratch, rows, secret = tmp_path / "scratch", tmp_path / "rows", tmp_path / "secret"
    scratch.mkdir()
    rows.mkdir()
    (rows / "some").write_text("rows")
    secret.write_text("x")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-c", ATTEMPTS),
                *(str(scratch), str(rows), str(secret)),
                *(str(theirs.fileno()), str(os.getpid())),
            ],
            pass_fds=[theirs.fileno()],
            env={"LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout)
    assert len(found) > 20
    assert {name for name, error in found.items() if not error} == set()
    assert secret.read_text() == "x"
    assert (scratch / "own").read_text() == "rows"

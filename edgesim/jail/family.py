"""Termination of all descendants of a process with it, by a PID namespace or a subreaper.

In a PID namespace (https://man7.org/linux/man-pages/man7/pid_namespaces.7.html) the kernel kills
every process when the first one exits, whatever its session and ignored signals.  The process
itself stays outside, so that its parent sees the real ids of its forks; the first process inside
is a helper that exits when the outer one does.  This needs a privilege or user namespaces.
Without either, orphans become children of this process (PR_SET_CHILD_SUBREAPER); while it runs,
the code that terminates it can find them there.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal

from edgesim.system import LINUX

NAMESPACE, SUBREAPER = "PID namespace", "subreaper"
_CLONE_NEWPID, _CLONE_NEWUSER = 0x20000000, 0x10000000
_PR_SET_CHILD_SUBREAPER = 36
_FILES_MAX = 1024


class ProcessFamily:
    """Handle on the mechanism that ends this process's descendants; ``helper`` is a pid."""

    def __init__(self, helper: int | None) -> None:
        self._helper = helper

    @property
    def kind(self) -> str:
        return SUBREAPER if self._helper is None else NAMESPACE

    def has_ended(self) -> bool:
        """Return True if the helper has exited: the kernel has killed all, and forks fail."""
        return self._helper is not None and os.waitpid(self._helper, os.WNOHANG)[0] != 0


def found_family() -> ProcessFamily | None:
    """Add every later child to a new family; return None without Linux (see ``lifeline``).

    Call it before the process starts threads, and before the first child to be included.
    """
    if not LINUX:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    if _has_pidfd() and _enter_namespace(libc):
        return ProcessFamily(_start_helper())
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return ProcessFamily(None)


def _has_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # before Linux 5.3
        return False
    return True


def _enter_namespace(libc: ctypes.CDLL) -> bool:
    """Put all later children into a new PID namespace; return False if the kernel refuses."""
    if libc.unshare(_CLONE_NEWPID) == 0:
        return True
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWPID) != 0:
        return False
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 (no pathlib in isolates)
            file.write(text)
    return True


def _start_helper() -> int:
    """Fork the first process of the namespace, which exits as soon as this process has exited."""
    # Not PR_SET_PDEATHSIG: Landlock blocks signals from a zygote to processes outside its ruleset.
    parent = os.pidfd_open(os.getpid())
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans are reaped by the kernel
            end = select.poll()
            end.register(parent, select.POLLIN)
            os.closerange(0, parent)
            os.closerange(parent + 1, _FILES_MAX)
            end.poll()
        finally:
            os._exit(0)
    os.close(parent)
    return pid

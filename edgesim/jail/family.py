"""All descendants of a process end with it: by a PID namespace, else by being its children still.

In a PID namespace (https://man7.org/linux/man-pages/man7/pid_namespaces.7.html) the kernel ends
every process when the first one ends, whatever session it is in and whatever it ignores.  The
process itself stays outside, so that ids of its forks are those that its own parent knows; the
first one inside is a helper that waits for the end.  It needs a privilege or user namespaces.
Without either, orphans become children of this process (PR_SET_CHILD_SUBREAPER), where whoever
ends it finds them, as long as it lives.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys

NAMESPACE, SUBREAPER = "PID namespace", "subreaper"
_CLONE_NEWPID, _CLONE_NEWUSER = 0x20000000, 0x10000000
_PR_SET_CHILD_SUBREAPER = 36
_FILES_MAX = 1024


class Family:
    """What holds the descendants of this process together."""

    def __init__(self, helper: int | None) -> None:
        self._helper = helper

    @property
    def kind(self) -> str:
        return SUBREAPER if self._helper is None else NAMESPACE

    def has_ended(self) -> bool:
        """Whether the helper is gone: then the kernel has ended all, and forks fail."""
        return self._helper is not None and os.waitpid(self._helper, os.WNOHANG)[0] != 0


def found_family() -> Family | None:
    """From here on every child belongs; None where the system has nothing of the kind.

    Before any thread, and before any child that matters.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    if _has_pidfd() and _enter_namespace(libc):
        return Family(_start_helper())
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return Family(None)


def _has_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # before Linux 5.3
        return False
    return True


def _enter_namespace(libc: ctypes.CDLL) -> bool:
    """Children are born into a new PID namespace from here on; False where that is refused."""
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
    """Fork the first process of the namespace; it ends as soon as this one has ended."""
    # Not PR_SET_PDEATHSIG: Landlock keeps the signals of a zygote among its own.
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

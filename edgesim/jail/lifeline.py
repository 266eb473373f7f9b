"""Termination of edgesim's child processes when edgesim ends, even by SIGKILL.

On Linux every child requests a signal for that event (PR_SET_PDEATHSIG).  Elsewhere a watchdog
process in the child's process group waits for the end of its standard input, a pipe that only
edgesim holds open, and then kills the group, itself included.  This works for a child that hangs or
computes, and uses no process id that may have been reused.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal

from edgesim.system import LINUX

_PR_SET_PDEATHSIG = 1
_LOOK_MS = 500
"""Interval between checks whether the watched process has exited."""
_FILES_MAX = 1024
# Looked up here and not in each fork: it is 150 page faults.
_PRCTL = ctypes.CDLL(None).prctl if LINUX else None


def ignore_group_signals() -> None:
    """Ignore SIGINT, SIGTERM and SIGHUP, here and in every fork.

    Service managers and terminals send them to the whole process group.  The platform then finishes
    the invocations in flight, and needs the isolates for that.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def end_with_edgesim(parent: int | None = None) -> None:
    """Have this process killed as soon as edgesim, which started it, has ended.

    ``parent`` is edgesim's process id: it may have ended before this is called.

    Elsewhere than on Linux its forks are killed too, and those are killed with it.  Call it before
    the process starts threads, and once the signals that it ignores are ignored.
    """
    if LINUX:
        end_with_parent()
        if parent is not None and os.getppid() != parent:
            os._exit(1)
    else:
        _start_watcher()


def end_with_parent() -> None:
    """Ask Linux to kill this process as soon as its parent has ended; elsewhere do nothing."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _start_watcher() -> None:
    watched = os.getpid()
    if os.fork() == 0:
        try:
            _watch(watched)
        finally:
            os._exit(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # the watched process has no standard input
    os.close(nothing)


def _watch(watched: int) -> None:
    """Wait until edgesim or the watched process has ended, then kill the process group."""
    os.closerange(1, _FILES_MAX)  # channels that edgesim would otherwise see as still open
    end = select.poll()
    end.register(0, select.POLLIN)
    while os.getppid() == watched and not end.poll(_LOOK_MS):
        pass
    if os.getpgrp() == watched:  # not a group that the process was started into
        os.killpg(watched, signal.SIGKILL)

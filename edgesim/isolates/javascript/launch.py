"""The start of a workerd process: puts it in its jail, then becomes workerd.

Started as ``python -m edgesim.isolates.javascript.launch PARENT FOLDER WORKERD ARGUMENTS...``;
PARENT is edgesim's process id, FOLDER the only one of the user's that it may read.  workerd ends
with the platform, whatever kills that.
"""

from __future__ import annotations

import os
import resource
import sys

from edgesim.jail import landlock, seccomp
from edgesim.jail.lifeline import end_with_edgesim, ignore_group_signals

_INSPECTOR = "--inspector-addr="
"""The option of workerd that makes it listen for a debugger."""

_READABLE = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom",
    "/proc/self", "/proc/meminfo", "/proc/cpuinfo", "/sys/devices/system/cpu",
)  # fmt: skip
_EXECUTABLE = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
"""Folders of the dynamic loader, which the kernel runs before the program."""


def main(parent: str, folder: str, workerd: str, *arguments: str) -> None:
    """Jail this process and run workerd in it."""
    ignore_group_signals()
    end_with_edgesim(int(parent))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    listens = any(each.startswith(_INSPECTOR) for each in arguments)
    landlock.restrict((folder, *_READABLE), execute=(workerd, *_EXECUTABLE), listens=listens)
    if seccomp.available():
        seccomp.workerd_program(listens=listens).put_on()
    try:
        os.execv(workerd, [workerd, *arguments])  # noqa: S606 (the program that was found)
    except OSError as error:
        sys.exit(f"cannot run {workerd}: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Files beside a Worker's module that its code may read.

The folder of ``main`` may be the project's: it may contain the state directory with the objects and
messages of all Workers, the file with this run's token, and the secrets of other Workers.  The
kernel grants a folder with everything below it.  So if a folder contains something hidden, its
other entries are granted one by one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

FOLDERS_MAX = 5000
"""Maximum folders that are searched, outer ones first; the content of others is not readable."""
_NOT_A_WORKERS = {"node_modules", "python_modules"}
"""Folders that are not searched; vendored packages are granted by themselves."""


def readable(folder: str, hidden: Sequence[str]) -> list[str]:
    """Return the paths to grant: the folder, or those of its entries that hide nothing.

    Hidden are names that begin with a dot (``.dev.vars``, ``.env``, ``.edgesim``), the paths
    ``hidden``, and files named after one of them (``queues.db-wal``).  A symbolic link grants
    nothing: its target is readable only if the target's own path is granted.
    """
    folder = os.path.realpath(folder)
    folders = [folder]
    entries: dict[str, list[str]] = {}
    divided: set[str] = set()
    for path in folders:  # grows during the loop
        found = _entries(path) if len(entries) < FOLDERS_MAX else None
        if found is None:
            divided.add(path)
            continue
        entries[path] = []
        for entry in found:
            if _is_hidden(entry.name, entry.path, hidden):
                divided.add(path)
            elif not entry.is_symlink():
                entries[path].append(entry.path)
                if entry.is_dir():
                    folders.append(entry.path)
    for path in reversed(folders):
        if path in divided and path != folder:
            divided.add(os.path.dirname(path))  # noqa: PTH120 (paths are text here)
    return list(_undivided(folder, entries, divided))


def _entries(path: str) -> list[os.DirEntry[str]] | None:
    try:
        with os.scandir(path) as found:
            return list(found)
    except OSError:  # not readable for the platform either
        return None


def _is_hidden(name: str, path: str, hidden: Iterable[str]) -> bool:
    return (
        name.startswith(".")
        or name in _NOT_A_WORKERS
        or any(path == each or path.startswith(f"{each}-") for each in hidden)
    )


def _undivided(folder: str, entries: dict[str, list[str]], divided: set[str]) -> Iterable[str]:
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        if path not in divided:
            yield path
        else:
            waiting += entries.get(path, ())

"""Where an import of worker code finds a module: the order of the platform's import path.

Python's standard library comes first, then the Worker's own folder, then vendored packages.  So a
file ``calendar.py`` beside the entry is never imported, and no package replaces a library module.
The platform's library lacks some modules of the Python that runs edgesim; a Worker's own modules
with those names are found, even if edgesim itself has imported the library's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

# Observed in Pyodide 0.28.2 and 314, and tested there: ABSENT raises ModuleNotFoundError in both,
# NOT_EVERYWHERE in one.
ABSENT = frozenset(
    (
        *("curses", "dbm", "ensurepip", "grp", "idlelib", "msvcrt", "nt", "pwd", "pydoc_data"),
        *("readline", "resource", "syslog", "tkinter", "turtle", "turtledemo", "venv"),
        *("winreg", "winsound"),
    )
)
NOT_EVERYWHERE = frozenset({"fcntl", "lzma", "pty", "sqlite3", "ssl", "termios", "tty"})
ADDED = frozenset({"annotationlib", "compression"})
"""Modules that Python has from 3.14 on, so the platform's default Python lacks them."""
REMOVED = frozenset(
    (
        *("aifc", "asynchat", "asyncore", "audioop", "cgi", "cgitb", "chunk", "crypt", "distutils"),
        *("imghdr", "imp", "lib2to3", "mailcap", "msilib", "nis", "nntplib", "ossaudiodev"),
        *("pipes", "smtpd", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib"),
    )
)
"""Modules that Python had before 3.13, the oldest Python of the platform."""
LIBRARY = frozenset(sys.stdlib_module_names) - ABSENT - NOT_EVERYWHERE - ADDED - REMOVED
"""Top-level modules that an import finds in the standard library only."""
SDK = frozenset({"js", "pyodide", "workers"})
RESERVED = SDK | {"edgesim", "msgspec"}
"""Modules that an isolate itself consists of."""


def is_library(name: str) -> bool:
    """Return True if the module, or its package, comes from the standard library."""
    return name.partition(".")[0] in LIBRARY


def own_file(folder: Path, name: str) -> Path | None:
    """Return the file of the top-level module ``name`` in a folder, or None."""
    for file in (folder / name / "__init__.py", folder / f"{name}.py"):
        if file.is_file():
            return file
    return None


def is_own_folder(folder: Path, name: str, others: Iterable[Path]) -> bool:
    """Return True if the folder ``name`` without ``__init__.py`` is a package of the Worker.

    A module in one of the ``others``, or of the standard library, comes before it.
    """
    if name in RESERVED or name in sys.stdlib_module_names or not (folder / name).is_dir():
        return False
    return not any(own_file(other, name) for other in others)


def refuse_names(main: Path) -> None:
    """Raise ImportError for a file whose name makes the Worker fail on the platform.

    It would import a library module instead of the entry, or the file instead of the SDK.
    """
    if main.stem in LIBRARY:
        raise ImportError(
            f"{main.name} cannot be the entry: an import of {main.stem!r} finds the module of "
            "Python's standard library, also on Cloudflare; rename the file"
        )
    for name in sorted(RESERVED):
        file = own_file(main.parent, name)
        if file is not None:
            owner = "Cloudflare's SDK" if name in SDK else "edgesim"
            raise ImportError(
                f"{file.relative_to(main.parent)} has the name of a module of {owner}, which the "
                "Worker needs; rename it"
            )


def forget(names: Iterable[str]) -> None:
    """Remove modules from ``sys.modules`` that worker code must find again in its own folders.

    Modules of the platform's library stay: they are found first.
    """
    wanted = set(names) - LIBRARY - RESERVED
    for name in [name for name in sys.modules if name.partition(".")[0] in wanted]:
        del sys.modules[name]


def own_names(folder: Path) -> set[str]:
    """Return the names of the modules and packages in a folder."""
    files = {each.stem for each in folder.glob("*.py")}
    return files | {each.parent.name for each in folder.glob("*/__init__.py")}


class FirstFinder:
    """Finds modules of the given folders before others, except those of the standard library.

    On the import path the folders come after the library, and modules that are built into the
    interpreter come before the path.
    """

    __slots__ = ("_folders",)

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = tuple(folders)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module in the folders, or None."""
        if path is not None or name in LIBRARY or name in RESERVED:
            return None
        spec = PathFinder.find_spec(name, self._folders, target)
        # A folder without __init__.py is a package only if no other module has its name.
        is_folder = spec is not None and not spec.has_location
        return None if is_folder and name in sys.stdlib_module_names else spec

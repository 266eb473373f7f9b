"""Import of a Worker's modules: import path of worker code, one-line error messages."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import edgesim
from edgesim.isolates.guest.import_order import FirstFinder, forget, own_names, refuse_names
from edgesim.isolates.guest.packages import FOLDER, cure_of, module_folders, vendored

if TYPE_CHECKING:
    from importlib.abc import PathEntryFinder

SDK = str(Path(edgesim.__file__).parent / "sdk")


def reset_import_path() -> None:
    """Set ``sys.path`` to Python's standard library and the SDK.

    Packages installed beside edgesim are left out: the real platform has none of them.
    """
    library = [
        each
        for each in sys.path
        if each and "site-packages" not in each and "dist-packages" not in each
    ]
    # edgesim itself must stay importable if it runs from a checkout, not installed.
    home = str(Path(edgesim.__file__).parents[1])
    sys.path[:] = [*(each for each in library if each not in {home, SDK}), SDK]


def add_own_modules(main: Path) -> None:
    """Complete ``sys.path``: standard library, the Worker's folder, SDK, vendored packages.

    ImportError if a file has a name with which the Worker could not work.
    """
    refuse_names(main)
    own, *packages = module_folders(main)
    sys.path[-1:] = [own, SDK, *packages]
    sys.path_hooks.insert(0, _own_finder(main.parent))
    sys.meta_path.insert(0, FirstFinder([own, *packages, SDK]))
    forget(own_names(main.parent) | vendored(main))


class _OwnSource(SourceFileLoader):
    """Loader that always compiles a module from its source.

    Cached bytecode (.pyc) is validated by size and mtime (1 s), so it can be stale after a quick
    edit.
    """

    def path_stats(self, path: Any) -> Any:
        raise OSError(f"{path}: no bytecode is used")


def _own_finder(folder: Path) -> Callable[[str], PathEntryFinder]:
    """Return a path hook for the Worker's own modules; vendored packages may use bytecode."""
    finder = FileFinder.path_hook((_OwnSource, SOURCE_SUFFIXES))

    def find(path: str) -> PathEntryFinder:
        where = Path(path)
        if not where.is_relative_to(folder) or where.is_relative_to(folder / FOLDER):
            raise ImportError(f"{path} holds no module of the Worker's own", path=path)
        return finder(path)

    return find


def load(main: Path) -> ModuleType:
    """Import the worker module under its own name."""
    loader = _OwnSource(main.stem, str(main))
    spec = importlib.util.spec_from_file_location(main.stem, main, loader=loader)
    if spec is None:
        raise ImportError(f"{main} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[main.stem] = module
    loader.exec_module(module)
    return module


def explain(error: BaseException, main: Path) -> str:
    """Return one line: the exception, the line in the Worker's own files, and a known fix."""
    text = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {text}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(str(main.parent))]
    if (cure := cure_of(error, main)) is not None:
        text = f"{text}; {cure}"
    return f"{own[-1].filename}:{own[-1].lineno}: {text}" if own else f"{main}: {text}"

"""A Worker's vendored packages: their folders, and the fix for a failed import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from edgesim.isolates.guest.import_order import LIBRARY, own_file

FOLDER = "python_modules"
_PROJECT_NAMES = {
    "PIL": "Pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "jwt": "PyJWT",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}
"""Module name -> name of its project on PyPI, where they differ."""


def module_folders(main: Path) -> list[str]:
    """Return the folders of a Worker's modules: that of ``main``, then ``python_modules``."""
    folders = [main.parent, main.parent / FOLDER, main.parent.parent / FOLDER]
    return [str(folder) for folder in folders if folder.is_dir()]


def vendored(main: Path) -> frozenset[str]:
    """Return the names of the packages and modules in ``python_modules``."""
    folders = map(Path, module_folders(main)[1:])
    return frozenset(each.name.partition(".")[0] for folder in folders for each in folder.iterdir())


def cure_of(error: BaseException | None, main: Path) -> str | None:
    """Return the fix for a failed import, or None if no package is missing."""
    if not isinstance(error, ImportError) or not error.name:
        return None
    top = error.name.partition(".")[0]
    if top in LIBRARY:
        return _renaming(top, main)
    package = _PROJECT_NAMES.get(top, top)
    install = f"pip install --target {FOLDER} {package}"
    if top in vendored(main):
        for library in _webassembly(main, top):
            return f"{library} is for WebAssembly; for edgesim: {install}, in {main.parent}"
        return None
    if top in sys.stdlib_module_names or top in {"workers", "js", "pyodide", "edgesim"}:
        return None
    return (
        f"vendor the package: add {package!r} to `dependencies` in pyproject.toml, then "
        f"`uv run pywrangler sync`; or {install}, in {main.parent}"
    )


def _renaming(name: str, main: Path) -> str | None:
    own = own_file(main.parent, name)
    if own is None:
        return None
    shown = own.relative_to(main.parent)
    return f"{shown} is not imported, since Python's standard library has {name!r}; rename it"


def _webassembly(main: Path, top: str) -> Iterator[str]:
    for folder in module_folders(main)[1:]:
        found = [*Path(folder).glob(f"{top}*.so"), *Path(folder, top).rglob("*.so")]
        yield from (each.name for each in found if each.read_bytes()[:4] == b"\0asm")

"""A Worker's vendored packages: where they are, and what cures an import that fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = "python_modules"
_OTHERWISE_NAMED = {
    "PIL": "Pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "jwt": "PyJWT",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}
"""Projects whose name on the index is not that of the module."""


def module_folders(main: Path) -> list[str]:
    """Where a Worker's own modules are: beside ``main``, then ``python_modules``."""
    folders = [main.parent, main.parent / FOLDER, main.parent.parent / FOLDER]
    return [str(folder) for folder in folders if folder.is_dir()]


def vendored(main: Path) -> frozenset[str]:
    """Names of the packages and modules in ``python_modules``."""
    folders = map(Path, module_folders(main)[1:])
    return frozenset(each.name.partition(".")[0] for folder in folders for each in folder.iterdir())


def cure_of(error: BaseException | None, main: Path) -> str | None:
    """Return the cure of a failed import, or None if no package is missing."""
    if not isinstance(error, ImportError) or not error.name:
        return None
    top = error.name.partition(".")[0]
    package = _OTHERWISE_NAMED.get(top, top)
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


def _webassembly(main: Path, top: str) -> Iterator[str]:
    for folder in module_folders(main)[1:]:
        found = [*Path(folder).glob(f"{top}*.so"), *Path(folder, top).rglob("*.so")]
        yield from (each.name for each in found if each.read_bytes()[:4] == b"\0asm")

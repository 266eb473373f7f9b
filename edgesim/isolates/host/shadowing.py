"""Vendored packages that the ``inline`` level does not use: edgesim has its own copy of them.

One process can hold one version of a package, and edgesim's own code needs its version.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path


def shadowed(packages: Sequence[str], path: Sequence[str] | None = None) -> Iterator[str]:
    """Yield ``NAME VERSION (edgesim has VERSION)`` of each package that an import does not find.

    ``packages`` are the folders of vendored packages, ``path`` is where imports look before them;
    a package of the same version is left out.
    """
    before = [each for each in (sys.path if path is None else path) if each not in packages]
    for package in importlib.metadata.distributions(path=list(packages)):
        modules = {_module(Path(file.parts[0])) for file in package.files or ()}
        if not any(name and _is_found(name, before) for name in modules):
            continue
        own = next(iter(importlib.metadata.distributions(name=package.name, path=before)), None)
        if own is None or own.version != package.version:
            found = own.version if own else "another package of that name"
            yield f"{package.name} {package.version} (edgesim has {found})"


def _module(top: Path) -> str | None:
    """Return the module of a file or folder that an installation has written, or None."""
    name = top.name.partition(".")[0]
    is_module = top.suffix in {"", ".py", ".so"} and name.isidentifier()
    return name if is_module else None


def _is_found(name: str, path: Sequence[str]) -> bool:
    spec = PathFinder.find_spec(name, path)
    return spec is not None and spec.origin is not None

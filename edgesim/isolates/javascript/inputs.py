"""The files that a bundle is made of: the project's and its packages', none of the user's others.

esbuild runs with the user's rights, and worker code, or a package that it imports, names the files:
an import of another project's ``.dev.vars`` or of a key would put it into the Worker.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from edgesim.errors import WorkerLoadError

_PACKAGES = "node_modules"
_MARKS = (".git", "edgesim.toml", "pnpm-workspace.yaml", "package-lock.json", "yarn.lock")
"""Files of a folder that make it a project's, or that of all projects of a repository."""
_VIRTUAL = "<"
"""Beginning of the names of what esbuild adds itself."""


class _Metafile(msgspec.Struct):
    """The part of esbuild's metafile that names the files."""

    inputs: dict[str, object]


def check_inputs(worker: str, metafile: Path, folder: Path, main: Path) -> None:
    """WorkerLoadError for a file outside of the project, or one that is hidden in it.

    ``folder`` is the Worker's, to which the metafile's names are relative; the main module may be
    in another project.
    """
    roots = [_root(folder), _root(main.parent)]
    near = os.path.realpath(folder)
    for name in msgspec.json.decode(metafile.read_bytes(), type=_Metafile).inputs:
        if name.startswith(_VIRTUAL):
            continue
        path = Path(os.path.realpath(folder / name))
        if _PACKAGES in path.parts:
            continue
        if not any(path.is_relative_to(root) for root in roots):
            cure = "copy it there, or put an edgesim.toml above both"
            problem = f"imports {path}, which is not in {roots[0]}; {cure}"
            raise WorkerLoadError(f"worker {worker}: {problem}")
        if any(part.startswith(".") for part in _beyond(near, path)):
            problem = f"imports {path}; names that begin with a dot are hidden from Workers"
            raise WorkerLoadError(f"worker {worker}: {problem}")


def _beyond(folder: str, path: Path) -> tuple[str, ...]:
    """The names that lead to the path from the last folder that it has in common with another."""
    return path.relative_to(os.path.commonpath([folder, path])).parts


def _root(folder: Path) -> Path:
    """The outermost folder above that a mark makes a project's; the user's home is none."""
    real = Path(os.path.realpath(folder))
    home = Path(os.path.realpath(Path.home()))
    above = [each for each in (real, *real.parents) if not home.is_relative_to(each)]
    marked = [each for each in above if any((each / mark).exists() for mark in _MARKS)]
    return marked[-1] if marked else real

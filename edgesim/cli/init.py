"""edgesim init: write a new project with Workers, tests and a CI workflow.

The project is a pipeline from an HTTP request to a ClickHouse table.
"""

from __future__ import annotations

import argparse
from importlib.abc import Traversable
from importlib.resources import files
from pathlib import Path

from edgesim.errors import UsageError

_SUFFIX = ".tmpl"
_LANGUAGES = ("python", "typescript")
_HIDDEN = {"github", "gitignore"}
"""Template names that begin with a dot in the project."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim init``."""
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(), help="folder to write (default: .)"
    )
    parser.add_argument(
        "--language",
        choices=_LANGUAGES,
        default="python",
        help="language of the Workers (default: python)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the files and print the next command."""
    folder: Path = arguments.folder
    template = _template(arguments.language)
    taken = sorted(str(path) for path in template if _is_taken(folder, path))
    if taken:
        raise UsageError(
            f"{folder / taken[0]} exists already; name another folder: edgesim init DIR"
        )
    for path, text in template.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
    where = "" if folder == Path() else f"cd {folder} && "
    install = "npm install && " if "package.json" in map(str, template) else ""
    print(f"{len(template)} files in {folder.resolve()}; next: {where}{install}edgesim dev")
    return 0


def _is_taken(folder: Path, path: Path) -> bool:
    """Return True if the file exists, or a symbolic link on its way leads elsewhere."""
    on_the_way = [folder / path, *(folder / each for each in path.parents if each != Path())]
    return (folder / path).exists() or any(each.is_symlink() for each in on_the_way)


def _template(language: str) -> dict[Path, str]:
    """Return the template's files by path; other languages replace and add to the Python ones."""
    template = dict(_files(files("edgesim").joinpath("template"), Path()))
    if language == "python":
        return template
    shared = {path: text for path, text in template.items() if path.suffix != ".py"}
    return shared | dict(_files(files("edgesim").joinpath(f"template_{language}"), Path()))


def _files(folder: Traversable, path: Path) -> list[tuple[Path, str]]:
    found = []
    for each in folder.iterdir():
        name = each.name.removesuffix(_SUFFIX)
        inner = path / (f".{name}" if name in _HIDDEN else name)
        if each.is_dir():
            found += _files(each, inner)
        elif each.name.endswith(_SUFFIX):
            found.append((inner, each.read_text("utf-8")))
    return found

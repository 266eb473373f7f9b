"""Syntax trees of a Worker's own modules: ``main`` and its imports from the same folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edgesim.config import WorkerConfig
from edgesim.isolates.guest.import_order import is_library


class Source(msgspec.Struct):
    """One module; if it does not parse, ``error`` is set and ``tree`` is empty.

    ``package`` is the dotted name of the package that contains it, "" for none.
    """

    file: Path
    tree: ast.Module
    error: SyntaxError | None = None
    package: str = ""


def sources_of(worker: WorkerConfig) -> list[Source]:
    """``main`` first, then the modules of its folder that are imported, directly or not."""
    found: dict[Path, Source] = {}
    waiting = [worker.main]
    while waiting:
        file = waiting.pop(0)
        if file in found:
            continue
        found[file] = _read(file, worker.main.resolve().parent)
        for name, _ in imports(found[file]):
            waiting += own_module(worker.main.parent, name)
    return list(found.values())


def _read(file: Path, folder: Path) -> Source:
    package = ""
    if file.is_relative_to(folder):
        package = ".".join(file.parent.relative_to(folder).parts)
    try:
        return Source(file, ast.parse(file.read_bytes(), str(file)), package=package)
    except SyntaxError as error:
        return Source(file, ast.Module([], []), error, package)


def imports(source: Source) -> Iterator[tuple[str, ast.stmt]]:
    """Yield each import of the module, as its absolute dotted name and statement."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((each.name, node) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(node, source.package)
            if module:
                yield module, node
                yield from ((f"{module}.{each.name}", node) for each in node.names)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The module that ``from ... import`` names; "" if it is outside of every package."""
    if not node.level:
        return node.module or ""
    above = package.split(".") if package else []
    kept = above[: len(above) - node.level + 1]
    return ".".join([*kept, *([node.module] if node.module else [])]) if kept else ""


def is_own(folder: Path, top: str) -> bool:
    """Return True for a module or package of the Worker's folder, also without ``__init__.py``."""
    package = folder / top
    return bool(own_module(folder, top)) or (package.is_dir() and any(package.rglob("*.py")))


def own_module(folder: Path, name: str) -> list[Path]:
    """The files in the Worker's folder that ``import name`` executes."""
    if is_library(name):
        return []
    parts = name.split(".")
    found = []
    for end in range(1, len(parts) + 1):
        path = folder.joinpath(*parts[:end])
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                found.append(file.resolve())
                break
    return found


def aliases(tree: ast.Module) -> dict[str, str]:
    """Map of each name bound by an import to its full dotted name."""
    bound = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                bound[each.asname or each.name.partition(".")[0]] = (
                    each.name if each.asname else each.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for each in node.names:
                bound[each.asname or each.name] = f"{node.module}.{each.name}"
    return bound


def dotted(node: ast.AST) -> str | None:
    """``a.b.c`` for a name or an attribute chain, else None."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = dotted(node.value)
        return f"{inner}.{node.attr}" if inner else None
    return None


def top_level(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the nodes that are executed on import: all but the bodies of functions."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defaults = [each for each in node.args.kw_defaults if each is not None]
            waiting += [*node.decorator_list, *node.args.defaults, *defaults]
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)

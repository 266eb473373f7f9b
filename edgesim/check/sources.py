"""Syntax trees of a Worker's own modules: ``main`` and its imports from the same folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edgesim.config import WorkerConfig


class Source(msgspec.Struct):
    """One module; if it does not parse, ``error`` is set and ``tree`` is empty."""

    file: Path
    tree: ast.Module
    error: SyntaxError | None = None


def sources_of(worker: WorkerConfig) -> list[Source]:
    """``main`` first, then the modules of its folder that are imported, directly or not."""
    found: dict[Path, Source] = {}
    waiting = [worker.main]
    while waiting:
        file = waiting.pop(0)
        if file in found:
            continue
        found[file] = _read(file)
        for name, _ in imports(found[file].tree):
            waiting += own_module(worker.main.parent, name)
    return list(found.values())


def _read(file: Path) -> Source:
    try:
        return Source(file, ast.parse(file.read_bytes(), str(file)))
    except SyntaxError as error:
        return Source(file, ast.Module([], []), error)


def imports(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Yield each absolute import of the module, as its dotted name and statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((each.name, node) for each in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module, node
            yield from ((f"{node.module}.{each.name}", node) for each in node.names)


def own_module(folder: Path, name: str) -> list[Path]:
    """The files in the Worker's folder that ``import name`` executes."""
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

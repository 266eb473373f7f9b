"""Rules about ``env.NAME`` in code: each name is a binding, a variable or a secret."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from pathlib import Path

from edgesim.check.findings import Finding, relative
from edgesim.check.sources import Source, dotted
from edgesim.config import WorkerConfig

_OF_THE_PROXY = frozenset(
    {
        *("as_object_map", "as_py_json", "js_id", "new", "object_entries", "object_keys"),
        *("object_values", "to_py", "typeof"),
    }
)
"""Attributes that Pyodide's proxy of ``env`` itself has."""


def check_env_names(worker: WorkerConfig, source: Source, root: Path) -> Iterator[Finding]:
    """Yield a warning for the first use of each name on ``env`` that is not configured.

    Not errors: a secret may be deployed without being in a local file.
    """
    known = {each.name for each in worker.bindings()}
    file = relative(source.file, root)
    said = set()
    for node in sorted(_attributes(source.tree), key=lambda each: (each.lineno, each.col_offset)):
        name = node.attr
        if name in known or name in _OF_THE_PROXY or name.startswith("_") or name in said:
            continue
        said.add(name)
        key = worker.absent_bindings.get(name)
        near = difflib.get_close_matches(name, known, 1)
        if key is not None:
            problem = f"env.{name} is of `{key}`, which edgesim does not have"
            cure = "Test this part on Cloudflare"
        else:
            problem = f"env.{name} is used and not configured in {worker.file.name}"
            cure = (
                f"Did you mean `{near[0]}`"
                if near
                else "Add a binding, a variable, or a line in .dev.vars"
            )
        yield Finding(file, node.lineno, "warning", "env", problem, cure)


def _attributes(tree: ast.Module) -> Iterator[ast.Attribute]:
    own = _own_env(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = dotted(node.value)
            in_scope = (
                isinstance(node.value, ast.Subscript)
                and isinstance(node.value.slice, ast.Constant)
                and node.value.slice.value == "env"
            )
            if owner in {"self.env", "this.env"} or (owner == "env" and own) or in_scope:
                yield node


def _own_env(tree: ast.Module) -> bool:
    """True if the bare name ``env`` is the Worker's: the module binds it to nothing else."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {each.id for each in targets if isinstance(each, ast.Name)}
            if "env" in names and dotted(node.value or node) not in {"self.env", "this.env"}:
                return False
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module != "workers" and any(
                (each.asname or each.name) == "env" for each in node.names
            ):
                return False
    return True

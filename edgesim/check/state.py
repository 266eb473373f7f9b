"""Rules about the global scope: code executed on import, and state that handlers keep in globals.

On the platform the module is imported at deploy, every isolate starts from a snapshot of its
memory, and globals last as long as the isolate.  In edgesim every invocation starts from the state
after the import.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from edgesim.check.findings import Finding, relative
from edgesim.check.sources import Source, aliases, dotted, top_level

_REFUSED = frozenset(
    (
        *("fetch", "workers.fetch", "asyncio.run", "asyncio.sleep", "asyncio.create_task"),
        *("os.urandom", "os.getrandom", "uuid.uuid1", "uuid.uuid4"),
    )
)
_REFUSED_MODULES = frozenset({"random", "secrets"})
_SEEDED = frozenset({"random.Random"})
_FROZEN = frozenset({"time.time", "time.time_ns", "datetime.datetime.now", "datetime.date.today"})
_MAKERS = frozenset(
    (
        *("list", "dict", "set", "bytearray", "collections.defaultdict", "collections.Counter"),
        *("collections.deque", "collections.OrderedDict"),
    )
)
_CHANGES = frozenset(
    (
        *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem"),
        *("popleft", "remove", "reverse", "setdefault", "sort", "subtract", "update"),
    )
)


def check_global_scope(source: Source, root: Path) -> Iterator[Finding]:
    """Yield the findings for I/O, randomness, clock reads and ``await`` at import."""
    file = relative(source.file, root)
    names = aliases(source.tree)
    for node in top_level(source.tree):
        if isinstance(node, ast.Call):
            called = _called(node, names)
            if called in _REFUSED or _is_chance(called, node):
                problem = f"{called} at import: the platform refuses I/O and randomness there"
                cure = "Call it in a handler"
                yield Finding(file, node.lineno, "error", "global-scope", problem, cure)
            elif called in _FROZEN:
                problem = f"{called} at import is the moment of the deploy, for ever"
                cure = "Call it in a handler"
                yield Finding(file, node.lineno, "warning", "global-scope", problem, cure)
        elif isinstance(node, ast.Await):
            problem = "await at import"
            yield Finding(file, node.lineno, "error", "global-scope", problem, "Await in a handler")


def _is_chance(called: str, node: ast.Call) -> bool:
    if called in _SEEDED:
        return not node.args
    return called.partition(".")[0] in _REFUSED_MODULES and "." in called and called != "random"


def _called(node: ast.Call, names: dict[str, str]) -> str:
    first, _, rest = (dotted(node.func) or "").partition(".")
    return ".".join(filter(None, (names.get(first, first), rest)))


def check_state(source: Source, root: Path) -> Iterator[Finding]:
    """Yield a warning for each write of a function to a global of the module."""
    file = relative(source.file, root)
    mutable = _mutable_globals(source.tree)
    seen = set()
    for function in ast.walk(source.tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        local = _locals(function)
        for node, name in _writes(function):
            if name in local or (name not in mutable and not _declared_global(function, name)):
                continue
            if (node.lineno, name) in seen:
                continue
            seen.add((node.lineno, name))
            problem = (
                f"{function.name} writes to the global {name!r}: there it is kept between events "
                "of one isolate and lost with it, here every event starts afresh"
            )
            cure = "Keep it on self, or in R2, a queue or the database"
            yield Finding(file, node.lineno, "warning", "state", problem, cure)


def _mutable_globals(tree: ast.Module) -> set[str]:
    names = aliases(tree)
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        literal = isinstance(
            value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
        )
        if literal or (isinstance(value, ast.Call) and _called(value, names) in _MAKERS):
            found |= {each.id for each in targets if isinstance(each, ast.Name)}
    return found


def _locals(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Local names of the function: its parameters and assignments."""
    arguments = function.args
    found = {each.arg for each in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}
    declared: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Global):
            declared |= set(node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found - declared


def _declared_global(function: ast.AST, name: str) -> bool:
    return any(isinstance(node, ast.Global) and name in node.names for node in ast.walk(function))


def _writes(function: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Yield each node that changes a value, with the name of that value."""
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node, node.id
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(
            node.ctx, ast.Store | ast.Del
        ):
            name = dotted(node.value)
            if name:
                yield node, name
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = dotted(node.func.value)
            if name and node.func.attr in _CHANGES:
                yield node, name

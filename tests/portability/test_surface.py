"""edgesim's SDK has the public names and signatures of Cloudflare's, or a reason for a difference.

Both are parsed, not imported: Cloudflare's needs JavaScript.
"""

import ast
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path

import pytest

from tests.portability.scenarios import ROOT

OURS = ROOT / "edgesim" / "sdk" / "workers"
BROWSER = "workerd's Request has none of it; it is a browser's"
STATELESS = "edgesim runs pipelines of stateless Workers"
DIFFERENCES = {
    "DurableObject": STATELESS,
    "WorkflowEntrypoint": STATELESS,
    "Request.credentials": BROWSER,
    "Request.destination": BROWSER,
    "Request.is_history_navigation": BROWSER,
    "Request.mode": BROWSER,
    "Request.referrer": BROWSER,
    "Request.referrer_policy": BROWSER,
    "wait_until": "a JavaScript function there, whose signature Python does not know",
}
"""Names that edgesim lacks or defines differently, with the reason."""
OURS_ALONE = {"wait_until(work)": "see above"}
"""Names that only edgesim has, with the reason."""


def definitions_of(init: Path) -> dict[str, ast.stmt]:
    """Return the classes and functions that the package imports from its own modules, by name."""
    found: dict[str, ast.stmt] = {}
    for line in ast.parse(init.read_text("utf-8")).body:
        if not isinstance(line, ast.ImportFrom) or line.module in {None, "typing"}:
            continue
        module = init.parent / f"{str(line.module).removeprefix('workers.')}.py"
        wanted = {each.name for each in line.names}
        for node in ast.parse(module.read_text("utf-8")).body:
            if isinstance(node, _DEFINITIONS) and node.name in wanted:
                found[node.name] = node
    return found


_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def exported(init: Path) -> set[str]:
    """Return the names of ``__all__``; AssertionError without one."""
    for node in ast.parse(init.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError(f"{init} has no __all__")


def surface(init: Path) -> set[str]:
    """Return the exported names, with the public members and signatures defined in Python."""
    definitions = definitions_of(init)
    found = set()
    for name in exported(init):
        node = definitions.get(name)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(signature(name, node))
        elif isinstance(node, ast.ClassDef) and "TypedDict" in map(ast.unparse, node.bases):
            found |= {name, *(f"{name}.{field}" for field in fields(node))}
        else:
            found.add(name)
            if isinstance(node, ast.ClassDef):
                found |= set(members(node))
    return found


def fields(node: ast.ClassDef) -> Iterator[str]:
    """Yield the annotated names of a class."""
    for each in node.body:
        if isinstance(each, ast.AnnAssign):
            yield ast.unparse(each.target)


def members(node: ast.ClassDef) -> Iterator[str]:
    """Yield ``Class.name`` of a property or value, ``Class.name(signature)`` of a method."""
    for each in node.body:
        if isinstance(each, ast.Assign):
            yield from (f"{node.name}.{ast.unparse(target)}" for target in each.targets)
        if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if each.name.startswith("_") and each.name != "__init__":
            continue
        if any(ast.unparse(decorator) == "property" for decorator in each.decorator_list):
            yield f"{node.name}.{each.name}"
        else:
            yield signature(f"{node.name}.{each.name}", each)


def signature(name: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return the name, ``async`` or not, its parameters and their defaults; no annotations."""
    arguments = node.args
    for each in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        each.annotation = None
    for one in (arguments.vararg, arguments.kwarg):
        if one is not None:
            one.annotation = None
    kind = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{kind}{name}({ast.unparse(arguments)})"


@pytest.fixture(scope="module")
def theirs() -> set[str]:
    """Surface of Cloudflare's SDK, from the installed package."""
    listed = [Path(str(each.locate())) for each in files("workers-runtime-sdk") or []]
    return surface(next(each for each in listed if each.parts[-2:] == ("workers", "__init__.py")))


@pytest.fixture(scope="module")
def ours() -> set[str]:
    """Surface of edgesim's SDK."""
    return surface(OURS / "__init__.py")


def test_every_difference_has_a_reason(ours, theirs):
    """edgesim has each name with the same parameters and defaults, or it is in DIFFERENCES."""
    missing = {
        each
        for each in theirs - ours
        if not DIFFERENCES.keys() & {_name(each), _name(each).partition(".")[0]}
    }
    assert missing == set()


def test_no_reason_is_left_over(ours, theirs):
    """DIFFERENCES lists no name that is equal on both sides."""
    known = {_name(each) for each in theirs - ours}
    assert set(DIFFERENCES) - known == set()


def test_nothing_of_our_own(ours, theirs):
    """edgesim adds no name or parameter: code that uses one would fail on the platform."""
    assert {each for each in ours - theirs if each not in OURS_ALONE} == set()


def _name(entry: str) -> str:
    return entry.removeprefix("async ").partition("(")[0]

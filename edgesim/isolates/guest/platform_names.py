"""Detection of replaced names that the platform's code uses, after each turn of worker code.

Worker code can reach the names of every module through a function's ``__globals__``.  A function
that it puts there would run when the platform looks the name up, on top of the platform's frames.
So the names are compared before the platform's code continues.  The comparing function looks up no
name itself: all names that it uses are bound when it is created.  It calls no method of the values
and keys that it compares.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import FunctionType, ModuleType
from typing import Any

from edgesim.isolates.guest.dict_versions import marks_of

_OWN_PACKAGES = {"edgesim", "workers", "js", "pyodide", "__main__"}
USED = (
    *("_locale", "asyncio", "builtins", "ctypes", "errno", "gc", "heapq", "itertools"),
    *("msgspec", "msgspec.msgpack", "os", "socket", "sys", "time"),
)
"""Library modules in which the platform's code looks up names while it serves invocations."""
_HOOKS = {"breakpointhook", "displayhook", "excepthook", "unraisablehook"}
"""Functions of ``sys`` that ordinary code replaces; the platform calls none of them."""
NEAR = (
    "edgesim.isolates.guest.comparison",
    "edgesim.isolates.guest.fingerprint",
    "edgesim.isolates.guest.library_state",
    "edgesim.isolates.guest.module_namespace",
    "edgesim.isolates.guest.shared_state",
)
"""Modules whose functions worker code calls often, so that only these are compared each time."""
_MISSING = object()


def names_check(
    others: Iterable[dict[str, Any]] = (), modules: Iterable[str] | None = None
) -> Callable[[], bool]:
    """Return a function that returns True once a name has been replaced other than by an import.

    ``others``: further dicts to compare.  ``modules``: compare only these and the builtins.
    """
    own = [vars(module) for name, module in sys.modules.items() if _is_one(name, modules)]
    own += others
    used = USED if modules is None else ("builtins",)
    # The platform's own names shadow builtins: a new one is a change too.
    tables = [(names, names.copy(), True) for names in own]
    tables += [(vars(sys.modules[name]), _functions(name), False) for name in used]
    marks = marks_of([names for names, _, _ in tables])
    seen = marks()
    kind, count, text, mapping, missing = type, len, str, dict, _MISSING
    plain_module, watched_module = ModuleType, type(sys)

    def have_changed() -> bool:
        nonlocal seen
        now = marks()
        if now == seen:
            return False
        for names, before, is_own in tables:
            kept = 0
            for key, value in names.items():
                if kind(key) is not text:
                    return True
                if before.get(key, missing) is value:
                    kept += 1
                elif is_own:
                    module = kind(value) is plain_module or kind(value) is watched_module
                    registry = key == "__warningregistry__" and kind(value) is mapping
                    if not module and not registry:
                        return True
            if kept != count(before):
                return True
        seen = now
        return False

    return have_changed


def keyword_defaults() -> list[dict[str, Any]]:
    """Return the keyword defaults of the platform's functions: dicts that code can write to."""
    own = [vars(module) for name, module in sys.modules.items() if _is_one(name, None)]
    named = {id(each): each for names in own for each in names.values()}.values()
    classes = [each for each in named if issubclass(type(each), type)]
    members = [each for kind in classes if _is_own(kind) for each in vars(kind).values()]
    parts = [getattr(each, name, None) for each in members for name in ("__func__", "fget", "fset")]
    functions = [each for each in (*named, *members, *parts) if type(each) is FunctionType]
    found = [each.__kwdefaults__ for each in functions if _is_own(each)]
    return list({id(each): each for each in found if each}.values())


def _is_own(value: Any) -> bool:
    return type(value.__module__) is str and _is_one(value.__module__, None)


def _functions(module: str) -> dict[str, Any]:
    """Return the compared names of a library module: its functions, and ``sys.modules``."""
    return {
        name: value
        for name, value in vars(sys.modules[module]).items()
        if (callable(value) and name not in _HOOKS) or value is sys.modules
    }


def _is_one(module: str, of: Iterable[str] | None) -> bool:
    return module.partition(".")[0] in _OWN_PACKAGES if of is None else module in of

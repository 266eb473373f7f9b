"""Process-wide state of library modules, compared with a snapshot.

A library keeps registries (``shutil`` formats, ``copyreg`` functions, ``logging`` level names),
default objects (``logging.lastResort``, ``reprlib.aRepr``) and settings.  Ordinary code changes
them, and the next invocation in the same process would see the changes.  For each package that
worker code has imported, these are compared:

- the names of its modules, so that a setting that the library rebinds is seen;
- dicts, lists, sets and deques that a name or a class attribute holds, and those nested in them;
- the attributes of objects that a name holds;
- functions that worker code has looked up, and those of the platform that stand in for the
  library's: their attributes, defaults, code, and the names that they have from outer functions.

Caches are exempt: they change the duration of a call, not its result.  Not compared: state that is
not directly under a module's names (a function in a class, the interior of an object).
"""

from __future__ import annotations

import re
import sys
from _abc import _get_dump  # type: ignore[import-not-found]
from abc import ABCMeta, get_cache_token
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from enum import Enum
from functools import partial
from gc import get_referents
from types import FunctionType, ModuleType
from typing import Any, NamedTuple
from weakref import WeakSet

from edgesim.isolates.guest.comparison import DICTS, changed_keys, is_same
from edgesim.isolates.guest.dict_versions import (
    has_all_versions,
    has_versions,
    tag_of,
    together,
)
from edgesim.isolates.guest.fingerprint import Fingerprint
from edgesim.isolates.guest.first_uses import make_first_uses

DEPTH_MAX = 3
"""Levels of nested containers that are compared, the outermost included."""
_SEQUENCES = (list, set, deque)
_CACHE = re.compile("cache|warningregistry|memo", re.IGNORECASE)
_EXEMPT = {
    "asyncio.events._event_loop_policy",  # compared by shared_state
    "_asyncio._current_tasks",  # the running task, by event loop
    "asyncio.tasks._current_tasks",
    "logging._handlerList",  # weak references: an unused handler leaves by itself
    "logging.root",  # compared by shared_state, as are all loggers
}
"""Names that ordinary use changes, without effect on the next invocation."""
_LIVE = {"sys", "builtins", "os", "edgesim", "workers", "js", "pyodide", "gc", "_thread"}
"""Packages that are not compared here: the platform's, and those compared by ``shared_state``."""
_SETTINGS: dict[str, Callable[[Any], Any]] = {
    "csv": lambda csv: (csv.field_size_limit(), csv.list_dialects()),
    "decimal": lambda decimal: [
        repr(getattr(decimal, f"{name}Context")) for name in ("Default", "Basic", "Extended")
    ],
    "faulthandler": lambda faulthandler: faulthandler.is_enabled(),
    "socket": lambda socket: socket.getdefaulttimeout(),
    "threading": lambda threading: threading.stack_size(),
    "tracemalloc": lambda tracemalloc: tracemalloc.is_tracing(),
}
"""Settings and registries inside a C module, by the module that worker code imports."""


class _Held(NamedTuple):
    """A compared container, its path, and its content at the snapshot."""

    where: str
    container: Any
    before: Any


class LibraryState:
    """A snapshot of the packages that worker code has imported."""

    def __init__(
        self,
        vendored: frozenset[str] = frozenset(),
        referents: Callable[..., list[Any]] = get_referents,
    ) -> None:
        self._exempt = _LIVE | vendored
        self._referents = referents
        self._packages: set[str] = set()
        self._taken: set[str] = set()
        self._seen: set[int] = set()
        self._functions: dict[FunctionType, tuple[str, tuple[Any, ...]]] = {}
        self._functions_seen: Fingerprint | None = None
        self._abcs: list[tuple[type, int]] = []
        self._abc_token = get_cache_token()
        self._versioned = has_versions()
        self._dicts: list[_Held] = []
        self._tags: list[Any] = []
        self._versions = b""
        self._others: list[_Held] = []
        self._settings: list[tuple[str, Callable[[], Any], Any]] = []

    def watch(self, name: str) -> None:
        """Compare the package of the module ``name`` from now on, with its C accelerator."""
        package = name.partition(".")[0]
        if package not in self._exempt:
            self._packages |= {package, f"_{package}"}
        self._take()

    def watch_function(self, function: FunctionType) -> None:
        """Compare the function from now on."""
        if function not in self._functions:
            self._functions[function] = _name_of(function), self._state_of(function)
            self._functions_seen = None

    def watch_stand_ins(self, is_platform: Callable[[Any], bool]) -> None:
        """Compare functions with such code, in whose place the library has functions of its own."""
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] in sys.stdlib_module_names and name != "__main__":
                for value in list(vars(module).values()):
                    if type(value) is FunctionType and is_platform(value.__code__):
                        self.watch_function(value)

    def accept(self) -> None:
        """Take a new snapshot: an import of a library module made the changes, not worker code."""
        self._dicts = [_again(each) for each in self._dicts]
        self._others = [_again(each) for each in self._others]
        self._versions = together(self._tags)
        self._abcs = [(kind, _registered(kind)) for kind, _ in self._abcs]
        self._abc_token = get_cache_token()
        self._settings = [(name, read, read()) for name, read, _ in self._settings]

    def changed(self) -> str | None:
        """Return the name of state that differs from the snapshot; None if nothing differs."""
        if (changed := self._changed_function()) is not None:
            return changed
        if together(self._tags) != self._versions:
            if (found := _first_changed(self._dicts)) is not None:
                return found
            self._versions = together(self._tags)  # a change was undone
        if get_cache_token() != self._abc_token:
            for kind, count in self._abcs:
                if _registered(kind) != count:
                    return f"{kind.__module__}.{kind.__qualname__}.register"
            self._abc_token = get_cache_token()  # only the Worker's own classes were registered
        if (found := _first_changed(self._others)) is not None:
            return found
        # Last, because these call functions of the modules, which are now known to be unchanged.
        for name, read, before in self._settings:
            if not is_same(read(), before):
                return f"a setting of {name}"
        return None

    def _changed_function(self) -> str | None:
        # Reading the parts of a function raises an audit event for each.
        if self._functions_seen is not None and self._functions_seen.is_current():
            return None
        for function, (name, state) in self._functions.items():
            if not is_same(self._state_of(function), state):
                return name
        if has_all_versions():
            dicts = [each for function in self._functions for each in _dicts_of(function)]
            cells = [each for function in self._functions for each in function.__closure__ or ()]
            self._functions_seen = Fingerprint(dicts, [*self._functions, *cells], self._referents)
        return None

    def _state_of(self, function: FunctionType) -> tuple[Any, ...]:
        keywords, cells = function.__kwdefaults__, function.__closure__
        return (
            function.__dict__.copy(),
            function.__code__,
            function.__defaults__,
            keywords and keywords.copy(),
            cells and tuple(self._referents(*cells)),  # fewer than cells, if one is empty now
        )

    def _take(self) -> None:
        """Add newly imported modules of the compared packages."""
        for name in sys.modules.keys() - self._taken:
            module = sys.modules[name]
            if name.partition(".")[0] not in self._packages or not isinstance(module, ModuleType):
                continue
            self._taken.add(name)
            make_first_uses(name, module)
            if name in _SETTINGS:
                read = partial(_SETTINGS[name], module)
                self._settings.append((name, read, read()))
            self._add(_Held(name, vars(module), vars(module).copy()))
            for key, value in list(vars(module).items()):
                if key.startswith("__") or _is_exempt(name, key, value):
                    continue
                if isinstance(value, ABCMeta):
                    self._abcs.append((value, _registered(value)))
                for each in _held(f"{name}.{key}", value, self._seen):
                    self._add(each)

    def _add(self, held: _Held) -> None:
        if self._versioned and isinstance(held.container, dict):
            tag = tag_of(held.container)
            self._dicts.append(held)
            self._tags.append(tag)
            self._versions += together([tag])
        else:
            self._others.append(held)


def containers_below(module: ModuleType, exempt: Container[str]) -> list[Any]:
    """Return the containers that a snapshot of the module compares, its own names apart."""
    seen: set[int] = set()
    return [
        each.container
        for name, value in list(vars(module).items())
        if not name.startswith("__") and f"{module.__name__}.{name}" not in exempt
        for each in _held(f"{module.__name__}.{name}", value, seen)
    ]


def _again(held: _Held) -> _Held:
    unchanged = is_same(held.container, held.before)
    return held if unchanged else held._replace(before=held.container.copy())


def _registered(kind: type) -> int:
    """Return the number of classes registered with an abstract base class."""
    return len(_get_dump(kind)[0])


def _first_changed(held: Iterable[_Held]) -> str | None:
    for where, container, before in held:
        if is_same(container, before):
            continue
        if not isinstance(container, dict):
            return where
        for key in changed_keys(container, before):
            if type(key) is not str:
                return where
            if not _is_exempt(where, key, container.get(key)):
                return f"{where}.{key}"
    return None


def _is_exempt(where: str, name: Any, value: Any) -> bool:
    """Return True for a cache, a name in ``_EXEMPT``, or a newly imported submodule."""
    full = f"{where}.{name}"
    return (
        full in _EXEMPT
        or _CACHE.search(full) is not None
        or (issubclass(type(value), ModuleType) and sys.modules.get(full) is value)
    )


def _held(where: str, value: Any, seen: set[int], depth: int = 1) -> Iterator[_Held]:
    """Yield the containers to compare: ``value`` itself, its attributes', and nested ones."""
    kind = type(value)
    if id(value) in seen or isinstance(value, ModuleType | FunctionType | Enum | WeakSet):
        return
    seen.add(id(value))
    if issubclass(kind, type):
        for name, each in list(vars(value).items()):
            if not name.startswith("__") and type(each) in DICTS + _SEQUENCES:
                yield from _held(f"{where}.{name}", each, seen, depth + 1)
    elif kind in DICTS or kind in _SEQUENCES:
        if _CACHE.search(where):
            return
        yield _Held(where, value, value.copy())
        if depth < DEPTH_MAX:
            for each in list(value.values()) if kind in DICTS else list(value):
                if type(each) in DICTS + _SEQUENCES:
                    yield from _held(f"{where}[]", each, seen, depth + 1)
    elif type(names := getattr(value, "__dict__", None)) is dict and depth == 1:
        yield _Held(where, names, names.copy())
        for name, each in list(names.items()):
            if type(each) in DICTS + _SEQUENCES:
                yield from _held(f"{where}.{name}", each, seen, depth + 1)


def _name_of(function: FunctionType) -> str:
    names = function.__module__, function.__qualname__
    return ".".join(each for each in names if type(each) is str)


def _dicts_of(function: FunctionType) -> Iterator[dict[Any, Any]]:
    yield function.__dict__
    if (keywords := function.__kwdefaults__) is not None:
        yield keywords

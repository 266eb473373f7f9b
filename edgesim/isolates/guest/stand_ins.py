"""The Worker's own modules in ``sys.modules``, for libraries that look there.

``dataclasses``, ``typing``, ``pickle`` and ``importlib.resources`` find a class's module by its
name, from C too, and that is one dict for the whole process.  What stands there under a name of
the Worker's is a stand-in: each of its attributes is that of the running invocation's module, so
no invocation sees another's.  Tried and dropped: another mapping in the place of ``sys.modules``
(code in C has the dict itself, and ``pickle`` is such code); the modules themselves in it while
their invocation runs (others run in between).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any, Protocol


class OwnModules(Protocol):
    """The modules of one invocation."""

    def own(self, name: str) -> ModuleType | None:
        """The module of that name, loaded if need be; None if the Worker has none such."""

    def spec_of(self, name: str) -> ModuleSpec | None:
        """Return the spec of the Worker's module of that name, or None."""


running: ContextVar[OwnModules | None] = ContextVar("running", default=None)
"""The modules of the invocation whose code runs."""


class StandIn(ModuleType):
    """Whichever module of that name is the running invocation's."""

    def __getattribute__(self, name: str) -> Any:
        module = _own(_NAME.__get__(self)["__name__"])
        return ModuleType.__getattribute__(self if module is None else module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        module = _own(_NAME.__get__(self)["__name__"])
        if module is not None:
            setattr(module, name, value)

    def __delattr__(self, name: str) -> None:
        module = _own(_NAME.__get__(self)["__name__"])
        if module is not None:
            delattr(module, name)


_NAME: Any = vars(ModuleType)["__dict__"]


def _own(name: str) -> ModuleType | None:
    modules = running.get()
    return None if modules is None else modules.own(name)


class OwnLoader(SourceFileLoader):
    """Loads a module of the running invocation's, and answers for its source and its data."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Create the stand-in for ``sys.modules``."""
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Load the module itself."""
        _own(_NAME.__get__(module)["__name__"])


class _OwnFinder:
    """Finds what libraries import of the running invocation's modules."""

    __slots__ = ()  # nothing can be set on it

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        modules = running.get()
        return None if modules is None else modules.spec_of(name)


_FINDER = _OwnFinder()


def install() -> None:
    """Let libraries import the modules of the running invocation."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def put_in_place(names: Sequence[str]) -> None:
    """Stand-ins for modules that are in ``sys.modules`` themselves."""
    for name in names:
        sys.modules[name] = StandIn(name)


def stand_in_for(name: str, file: str) -> None:
    """A stand-in, unless there is one, or a library has a module of that name."""
    if name not in sys.modules and not _is_a_librarys(name, file):
        sys.modules[name] = StandIn(name)


def make_way_for(name: str) -> None:
    """Let a library module be imported whose name is that of another Worker's own."""
    top = name.partition(".")[0]
    if type(sys.modules.get(top)) is StandIn:
        for each in [each for each in sys.modules if each.partition(".")[0] == top]:
            del sys.modules[each]


def _is_a_librarys(name: str, file: str) -> bool:
    parent = name.rpartition(".")[0]
    if parent:
        return type(sys.modules.get(parent)) is not StandIn
    token = running.set(None)
    try:
        found = importlib.util.find_spec(name)
    finally:
        running.reset(token)
    return found is not None and found.origin != file

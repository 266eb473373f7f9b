"""Stand-ins for the Worker's own modules in ``sys.modules``, for libraries that look there.

``dataclasses``, ``typing``, ``pickle`` and ``importlib.resources`` find a class's module by its
name in ``sys.modules``, also from C, and that dict is process-wide.  For each module of the Worker
it contains a stand-in, which forwards attribute access to the module of the running invocation, so
no invocation sees another's.

Tried and dropped: replacing ``sys.modules`` by another mapping (C code, such as ``pickle``, uses
the original dict); storing the modules themselves while their invocation runs (invocations
interleave).
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
        """Return the module of that name, loaded if necessary; None if the Worker lacks it."""

    def spec_of(self, name: str) -> ModuleSpec | None:
        """Return the spec of the Worker's module of that name, or None."""


running: ContextVar[OwnModules | None] = ContextVar("running", default=None)
"""The modules of the running invocation."""


class StandIn(ModuleType):
    """Forwards attribute access to the running invocation's module of the same name."""

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
    """Loads a module of the running invocation, and gives access to its source and data files."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Create the stand-in for ``sys.modules``."""
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Load the module itself."""
        _own(_NAME.__get__(module)["__name__"])


class _OwnFinder:
    """Finds the running invocation's modules for imports made by libraries."""

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


def replace_loaded(names: Sequence[str]) -> None:
    """Replace modules that are in ``sys.modules`` themselves by stand-ins."""
    for name in names:
        sys.modules[name] = StandIn(name)


def stand_in_for(name: str, file: str | None) -> None:
    """Add a stand-in, unless one exists or a library has a module of that name."""
    if name not in sys.modules and not _is_library_module(name, file):
        sys.modules[name] = StandIn(name)


def remove_stand_ins(name: str) -> None:
    """Remove the stand-ins that would shadow a library module of the same name."""
    top = name.partition(".")[0]
    if type(sys.modules.get(top)) is StandIn:
        for each in [each for each in sys.modules if each.partition(".")[0] == top]:
            del sys.modules[each]


def _is_library_module(name: str, file: str | None) -> bool:
    parent = name.rpartition(".")[0]
    if parent:
        return type(sys.modules.get(parent)) is not StandIn
    token = running.set(None)
    try:
        found = importlib.util.find_spec(name)
    finally:
        running.reset(token)
    return found is not None and found.origin != file

"""State that the invocations of one process share: made read-only, or compared with a snapshot.

Worker code sees library modules through its own views (module_namespace.py), so a function that it
patches is patched for its invocation only.  Library classes are made immutable, like the
interpreter's own: setting an attribute is a TypeError.  Worker code that reaches a library module
past the view gets a TypeError too; names that the library itself sets on a module are recorded.
Other state that is easy to reach is compared with a snapshot after every invocation.

Not guarded: state that only a hostile program reaches (a function's ``__globals__``, objects found
through garbage collection).  The ``process`` level is for such programs.
"""

from __future__ import annotations

import _locale
import _thread
import asyncio
import builtins
import codecs
import ctypes
import gc
import logging
import os
import signal
import sys
import warnings
import weakref
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import AbstractContextManager
from contextvars import copy_context
from functools import partial
from importlib.machinery import FileFinder
from types import FunctionType, ModuleType, NoneType
from typing import Any, cast

from edgesim.isolates.guest import guard
from edgesim.isolates.guest.comparison import are_identical, are_plain, has_all_of, is_same
from edgesim.isolates.guest.dict_versions import has_all_versions, has_versions, marks_of
from edgesim.isolates.guest.fingerprint import Fingerprint, Referents
from edgesim.isolates.guest.library_state import LibraryState, containers_below
from edgesim.isolates.guest.sealed import sealed
from edgesim.isolates.guest.stand_ins import StandIn

_IMMUTABLE = 1 << 8
_HEAP = 1 << 9
_STABLE = 0xFFFFFFFF & ~(1 << 19)
"""All flags but VALID_VERSION_TAG, which a look-up may set."""
_FLAGS_OFFSET = 21 * ctypes.sizeof(ctypes.c_void_p)
"""Offset of ``tp_flags`` in a PyTypeObject of CPython 3.11 to 3.14, 64-bit."""

SPARE_FILES = 16
"""Maximum descriptors that invocations may hold or leak before the process counts as changed."""

_ATTRIBUTES_OF: Any = vars(logging.Filterer)["__dict__"].__get__
_ROOT, _MANAGER = logging.root, vars(logging.root.manager)
_LOGGING, _WARNINGS, _POLICY = vars(logging), vars(warnings), vars(asyncio.events)
"""Read as dicts, because worker code may have replaced functions of these modules."""

# Probes return the objects themselves, not copies: they run after every invocation.
_PROBES: dict[str, Callable[[], Any]] = {
    "builtins": lambda: vars(builtins),
    "os": lambda: vars(os),
    "_thread": lambda: vars(_thread),
    "gc": lambda: vars(gc),
    "os.environ": lambda: os.environ._data,
    "sys.path": lambda: sys.path,
    "sys.stdout": lambda: (sys.stdin, sys.stdout, sys.stderr),
    "a hook of sys": lambda: (
        sys.displayhook,
        sys.excepthook,
        sys.unraisablehook,
        sys.breakpointhook,
    ),
    "a finder of sys": lambda: (sys.meta_path, sys.path_hooks, _foreign_finders()),
    "the interpreter": lambda: (
        sys.getrecursionlimit(),
        sys.getswitchinterval(),
        sys.get_int_max_str_digits(),
        sys.get_coroutine_origin_tracking_depth(),
        sys.getdlopenflags(),
        gc.isenabled(),
        *gc.get_threshold(),
        gc.get_debug(),
    ),
    "a hook of the interpreter": lambda: (
        sys.gettrace(),
        sys.getprofile(),
        *sys.get_asyncgen_hooks(),
    ),
    "sys.argv": lambda: sys.argv,
    "gc.callbacks": lambda: gc.callbacks,
    "the locale": lambda: _locale.setlocale(_locale.LC_ALL),
    "warnings.filters": lambda: _WARNINGS.get("filters"),
    "asyncio": lambda: _POLICY.get("_event_loop_policy"),
}
_INTERPRETERS: tuple[ModuleType, ...] = (builtins, os, sys, gc)
"""Modules that the probes compare by name; their containers and objects are compared beside."""
_COMPARED_APART = {
    *("sys.modules", "sys.path", "sys.path_importer_cache", "sys.argv", "gc.callbacks"),
}
_IN_C = {
    *("the interpreter", "a hook of the interpreter", "the locale", "open descriptors"),
    *("the decimal context", "threads", "signal handlers", "masked signals", "the CPU timer"),
}
"""Probes of state that is not in dicts and lists, so that a fingerprint cannot show a change."""

_PROBES_WITHOUT_SECCOMP: dict[str, Callable[[], Any]] = {
    "threads": _thread._count,
    "signal handlers": lambda: [signal.getsignal(each) for each in signal.valid_signals()],
    "masked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    "the CPU timer": lambda: signal.getitimer(signal.ITIMER_PROF)[1],
}

_MISSING = object()
_complete: set[ModuleType] = set()
"""Library modules that are completely imported."""
_written: dict[tuple[ModuleType, str], Any] = {}
"""(library module, name) -> value before the name was set, for each name set on a module."""


class _Watched(ModuleType):
    """Class of every library module: the library may set its names, worker code may not."""

    def __setattr__(self, name: str, value: Any) -> None:
        _refuse_worker_code(self)
        _note_write(self, name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        _refuse_worker_code(self)
        _note_write(self, name)
        super().__delattr__(name)


def _note_write(module: ModuleType, name: str) -> None:
    # A module is not complete during its import; the import system gives it the class of ``sys``.
    if module in _complete:
        _written.setdefault((module, name), vars(module).get(name, _MISSING))


def _refuse_worker_code(module: ModuleType) -> None:
    # Worker code is recognized by its builtins, of which it has a copy (module_namespace.py).
    if sys._getframe(2).f_builtins is not vars(builtins):
        raise TypeError(f"cannot set an attribute of the module {module.__name__!r} itself")


class _SharedPart:
    """One part of the shared state, and a snapshot of it."""

    def __init__(self, name: str, read: Callable[[], Any]) -> None:
        self.name = name
        self._read = read
        self.accept()

    def containers(self) -> Iterator[Any]:
        """Yield the dicts and lists whose contents are compared."""
        return _containers(self._read())

    def accept(self) -> None:
        """Take a new snapshot."""
        value = self._read()
        self._before = _as_it_is(value)
        is_plain = type(value) is tuple and are_plain(value)
        self._kinds = tuple(map(type, value)) if is_plain else None
        self._versioned = value if type(value) is dict and has_versions() else None
        if self._versioned is not None:
            self._marks = marks_of([self._versioned])
            self._seen = self._marks()

    def has_changed(self) -> bool:
        """Return True if the state differs from the snapshot."""
        value = self._read()
        if value is self._versioned and self._marks() == self._seen:
            return False
        if self._kinds is not None and type(value) is tuple:  # without a call for each value
            same = are_identical(tuple(map(type, value)), self._kinds)
            return not same or bool(value != self._before)
        return not is_same(value, self._before)


class SharedState:
    """Snapshot of the shared state, taken before any worker code runs."""

    def __init__(
        self,
        suspended: Callable[[], AbstractContextManager[None]],
        frames_shut: Callable[[], AbstractContextManager[None]],
        objects: Callable[[], list[Any]],
        referents: Referents,
        vendored: frozenset[str],
    ) -> None:
        """``vendored``: packages whose state is shared, as on the platform, and not compared."""
        self.suspended = suspended
        self._frames_shut = frames_shut
        # Sealed: worker code that the library calls can inspect this object.
        self._freeze_modules = sealed(partial(_freeze_modules, objects))
        self._referents = sealed(referents)
        self._vendored = vendored
        self._modules: dict[str, ModuleType] = {}
        self._module_marks = marks_of([cast("dict[str, Any]", sys.modules)])
        self._modules_seen: Any = None
        probes = _PROBES | {
            "logging": _logging,
            "open descriptors": _leak_of_descriptors(),
            "weakref.finalize": _names_of_finalize,
        }
        for module in _INTERPRETERS:
            containers = containers_below(module, _COMPARED_APART)
            probes[f"an object in {module.__name__}"] = partial(tuple, containers)
        if (context := _shared_decimal_context()) is not None:
            probes["the decimal context"] = lambda: repr(context)
        if not guard.holds_processes():
            probes |= _PROBES_WITHOUT_SECCOMP
        self._reported = False
        self._early: str | None = None
        self._declared: list[str] = []
        self.library = LibraryState(vendored, self._referents)
        self.library.watch_stand_ins(guard.is_platform)
        self._unchanged: Fingerprint | None = None
        _record_codecs(self._declared)
        self.keep_modules()
        parts = [_SharedPart(name, read) for name, read in probes.items()]
        self._in_c = [each for each in parts if each.name in _IN_C]
        self._contained = [each for each in parts if each.name not in _IN_C]

    def keep_modules(self) -> None:
        """Protect newly imported modules, before worker code can reach them."""
        names = sys.modules.keys() - self._modules.keys()
        new = {name: sys.modules[name] for name in names}
        found = {
            name: module
            for name, module in new.items()
            if name.partition(".")[0] not in self._vendored and type(module) is not StandIn
        }
        for module in found.values():
            if type(module) is ModuleType:
                module.__class__ = _Watched
            if isinstance(module, _Watched):
                _complete.add(module)
        self._freeze_modules(found.keys())
        self._modules |= new
        for module, name in list(_written):  # the import system sets a module on its package
            if vars(module).get(name) is sys.modules.get(f"{module.__name__}.{name}", _MISSING):
                del _written[module, name]

    def looked_up(self, function: FunctionType) -> None:
        """Compare this library function, which worker code has looked up, from now on."""
        self.library.watch_function(function)

    def begin_import(self) -> None:
        """Begin a library module's import, whose own changes do not count as the Worker's."""
        if self._early is None:
            with self.suspended(), self._frames_shut():
                self._early = self.library.changed() or self._setting_changed()

    def end_import(self, name: str) -> None:
        """End the import of a library module: accept its changes."""
        with self.suspended(), self._frames_shut():
            if sys.modules.keys() != self._modules.keys():
                self.keep_modules()
                self.library.accept()
                self.accept_settings()
            self.library.watch(name)

    def changed(self) -> str | None:
        """Return the name of changed shared state; a change is reported once, then None."""
        if self._reported:
            return None
        with self.suspended(), self._frames_shut():
            found = self._found()
        self._reported = found is not None
        return found

    def _found(self) -> str | None:
        found = self._early or next(iter(self._declared), None) or self.library.changed()
        found = found or self._setting_changed()
        if found is None and not self._has_its_modules():
            found = "sys.modules"
        if found is None and _written:
            found = self._rewritten()
        return found

    def _setting_changed(self) -> str | None:
        for each in self._in_c:
            if each.has_changed():
                return each.name
        if self._unchanged is not None and self._unchanged.is_current():
            return None
        for each in self._contained:
            if each.has_changed():
                return each.name
        self._unchanged = _fingerprint(self._contained, self._referents)
        return None

    def accept_settings(self) -> None:
        """Take a new snapshot of the settings; a change until now is not worker code's."""
        for each in (*self._in_c, *self._contained):
            each.accept()
        self._unchanged = None

    def _has_its_modules(self) -> bool:
        """Return True if no module is missing in ``sys.modules``; the library may add some."""
        if self._module_marks() == self._modules_seen:
            return True
        found = has_all_of(sys.modules, self._modules)
        if found and has_versions():
            self._modules_seen = self._module_marks()
        return found

    @staticmethod
    def _rewritten() -> str | None:
        """Return a module attribute that changed; parts of the library set one and restore it."""
        for (module, name), before in list(_written.items()):
            value = vars(module).get(name, _MISSING)
            if value is not before and sys.modules.get(f"{module.__name__}.{name}") is not value:
                return f"{module.__name__}.{name}"
            del _written[module, name]
        return None


def _as_it_is(value: Any) -> Any:
    """Return a copy of the value's containers, so that later changes do not affect it."""
    if type(value) is tuple:
        return tuple(map(_as_it_is, value))
    return value.copy() if type(value) in _COPIED else value


def _containers(value: Any) -> Iterator[Any]:
    """Yield the containers that ``_as_it_is`` copies."""
    if type(value) is tuple:
        for each in value:
            yield from _containers(each)
    elif type(value) in _COPIED:
        yield value


_COPIED = (dict, list, set)


def _fingerprint(parts: Iterable[_SharedPart], referents: Referents) -> Fingerprint | None:
    """Return the fingerprint of the parts, which are unchanged; None if there can be none."""
    cache, loggers = sys.path_importer_cache, _MANAGER.get("loggerDict")
    if not has_all_versions() or type(cache) is not dict or type(loggers) is not dict:
        return None
    found: list[Any] = [vars(sys), vars(os.environ), cache]  # by which the parts are read
    found += [_LOGGING, _WARNINGS, _POLICY, _MANAGER, loggers, _OF_FINALIZE]
    for part in parts:
        found += part.containers()
    for logger in (_ROOT, *loggers.values()):
        if issubclass(type(logger), logging.Logger):
            attributes = _ATTRIBUTES_OF(logger)
            if type(attributes) is not dict:
                return None
            found.append(attributes)
            for name, value in attributes.items():
                if type(name) is not str or name not in _OF_ITSELF:
                    found += _containers(value)
    if any(type(each) not in _COPIED for each in found):
        return None
    dicts = [each for each in found if type(each) is dict]
    return Fingerprint(dicts, [each for each in found if type(each) is not dict], referents)


def _logging() -> Any:
    """Return the configuration of all loggers; loggers without configuration are left out."""
    _remove_default_handler()
    loggers = _MANAGER.get("loggerDict")
    if type(loggers) is not dict:
        return None
    found: list[Any] = []
    for name, each in loggers.items():
        if not issubclass(type(each), logging.Logger):
            if type(each) is not logging.PlaceHolder:
                found.append((name, each))
        elif state := _configured(each):
            found.append((name, state))
    manager = {name: each for name, each in _MANAGER.items() if name not in _OF_THE_MANAGER}
    settings = [_LOGGING.get(name) for name in ("root", "_loggerClass", "_logRecordFactory")]
    return found, _configured(_ROOT), manager, settings


_OF_THE_MANAGER = {"emittedNoHandlerWarning", "loggerDict"}
_UNCONFIGURED: dict[str, Any] = {
    "level": logging.NOTSET,
    "propagate": True,
    "disabled": False,
    "handlers": [],
    "filters": [],
}
_OF_ITSELF = {"name", "parent", "manager", "_cache"}
"""Attributes of a logger that the library sets."""


def _configured(logger: logging.Logger) -> dict[str, Any]:
    """Return the attributes of a logger that differ from a new logger's."""
    return {
        name: _as_it_is(value)
        for name, value in _ATTRIBUTES_OF(logger).items()
        if type(name) is not str
        or (name not in _OF_ITSELF and not is_same(value, _UNCONFIGURED.get(name, _MISSING)))
    }


def _remove_default_handler() -> None:
    """Remove the handler that ``logging.warning("...")`` adds if no handler is configured.

    This is common in ordinary code, so it must not count as a change.  The handler writes to the
    console, as ``logging.lastResort`` does, and the next call adds it again.
    """
    handlers = _ATTRIBUTES_OF(_ROOT).get("handlers")
    if type(handlers) is list and len(handlers) == 1:
        (handler,) = handlers
        if type(handler) is logging.StreamHandler and _is_default(_ATTRIBUTES_OF(handler)):
            handlers.clear()


def _is_default(handler: dict[str, Any]) -> bool:
    formatter = handler.get("formatter")
    if type(formatter) is not logging.Formatter:
        return False
    names = vars(formatter)
    style = names.get("_style")
    return (
        handler.get("stream") is sys.stderr
        and is_same(handler.get("level"), logging.NOTSET)
        and is_same(handler.get("filters"), [])
        and handler.get("_name") is None
        and type(style) is logging.PercentStyle
        and is_same(names.get("_fmt"), logging.BASIC_FORMAT)
        and names.get("datefmt") is None
    )


def _leak_of_descriptors() -> Callable[[], bool]:
    """Return a probe that is True once invocations have leaked more than ``SPARE_FILES``.

    It relies on the kernel giving a new descriptor the lowest free number.
    """
    highest = _lowest_free() + SPARE_FILES
    return lambda: _lowest_free() > highest


def _lowest_free() -> int:
    try:
        number = os.dup(2)
    except OSError:  # no descriptor is free, or standard error is closed
        return sys.maxsize
    os.close(number)
    return number


def _shared_decimal_context() -> Any:
    """Return the ``decimal`` context that invocations inherit, if the Worker's import set one."""
    found = (value for var, value in copy_context().items() if var.name == "decimal_context")
    return next(found, None)


def _record_codecs(declared: list[str]) -> None:
    """Record registrations of codecs and error handlers, which cannot be listed afterwards."""
    for name in ("register", "register_error", "unregister"):
        real = getattr(codecs, name)

        def noted(*args: Any, _real: Any = real, _name: str = f"codecs.{name}") -> Any:
            declared.append(_name)
            return _real(*args)

        for module in (codecs, sys.modules["_codecs"]):
            vars(module)[name] = noted


def is_frozen(kind: type) -> bool:
    """Return True for a class of the interpreter or a library."""
    return bool(_FLAGS_OF(kind) & _IMMUTABLE) or kind is _SETS_ITSELF


def is_from(packages: frozenset[str], kind: type) -> bool:
    """Return True for a class of one of these packages."""
    return _module_of(kind).partition(".")[0] in packages


# Read through the slots: attribute access could run a metaclass of worker code.
_FLAGS_OF: Any = vars(type)["__flags__"].__get__
_NAMES_OF: Any = vars(type)["__dict__"].__get__


def _module_of(kind: type) -> str:
    module = _NAMES_OF(kind).get("__module__")
    return module if type(module) is str else ""


_SETS_ITSELF = weakref.finalize
"""Class that sets its own attributes at every use; so it is compared, not frozen."""


def _foreign_finders() -> list[Any]:
    """Return cached path entry finders of foreign types; the library adds its own at any time."""
    cache = sys.path_importer_cache
    if type(cache) is not dict:
        return [cache]
    return [each for each in cache.values() if id(type(each)) not in _FINDERS]


_FINDERS = {id(FileFinder), id(NoneType)}
_FINDERS |= {id(type(each)) for each in sys.path_importer_cache.values()}


(_OF_FINALIZE,) = gc.get_referents(vars(_SETS_ITSELF))  # the dict behind the view


def _names_of_finalize() -> dict[str, Any]:
    own = {"_dirty", "_registered_with_atexit"}
    return {name: value for name, value in _OF_FINALIZE.items() if name not in own}


def freeze_types(vendored: frozenset[str]) -> None:
    """Make every existing class immutable, except those of vendored packages.

    Classes created later stay mutable.
    """
    _freeze(kind for kind in _types(gc.get_objects) if not is_from(vendored, kind))


def _freeze_modules(objects: Callable[[], list[Any]], modules: Container[str]) -> None:
    """Make the classes of these modules immutable."""
    _freeze(kind for kind in _types(objects) if _module_of(kind) in modules)


def _types(objects: Callable[[], list[Any]]) -> list[Any]:
    # Not isinstance: a weak proxy reports the class of its target.
    return [kind for kind in objects() if issubclass(type(kind), type)]


def _freeze(kinds: Iterable[Any]) -> None:
    for kind in kinds:
        flags_before = _FLAGS_OF(kind)
        if flags_before & _HEAP and kind is not _SETS_ITSELF:
            flags = ctypes.c_ulong.from_address(id(kind) + _FLAGS_OFFSET)
            if (flags.value ^ flags_before) & _STABLE:
                raise RuntimeError("unsupported interpreter: unknown offset of class flags")
            flags.value |= _IMMUTABLE

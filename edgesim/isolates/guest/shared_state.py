"""State that the invocations of one process share: made read-only, or watched for changes.

Worker code sees library modules through views of its own (module_namespace.py), so a patched
function is patched for itself alone.  Library classes are made immutable, as the interpreter's own
are: to set an attribute of one is a TypeError.  So it is for library modules that worker code gets
past the views; what the library itself sets on them is written down.  The rest that is easily
reached is compared after every invocation with what it was.

What a determined program can still reach (a function's ``__globals__``, objects by way of the
collector) is not guarded here: that is what the ``process`` level is for.
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
from collections.abc import Callable, Container, Iterable
from contextlib import AbstractContextManager
from contextvars import copy_context
from functools import partial
from math import inf
from types import FunctionType, ModuleType
from typing import Any

from edgesim.isolates.guest import guard
from edgesim.isolates.guest.library_state import LibraryState, VersionMarks
from edgesim.isolates.guest.sealed import sealed
from edgesim.isolates.guest.stand_ins import StandIn

_IMMUTABLE = 1 << 8
_HEAP = 1 << 9
_STABLE = 0xFFFFFFFF & ~(1 << 19)
"""All flags but the one that a look-up may set (VALID_VERSION_TAG)."""
_FLAGS_OFFSET = 21 * ctypes.sizeof(ctypes.c_void_p)
"""Of ``tp_flags`` in every PyTypeObject of CPython 3.11 to 3.14, 64-bit."""

SPARE_FILES = 16
"""Descriptors that other invocations may have open at the same time, or have left open."""

# The things themselves, not copies: this is asked after every invocation.
_PROBES: dict[str, Callable[[], Any]] = {
    "builtins": lambda: vars(builtins),
    "os.environ": lambda: os.environ._data,
    "sys.path": lambda: sys.path,
    "sys.stdout": lambda: (sys.stdin, sys.stdout, sys.stderr),
    "a hook of sys": lambda: (
        sys.displayhook,
        sys.excepthook,
        sys.unraisablehook,
        sys.breakpointhook,
    ),
    "sys.meta_path": lambda: (sys.meta_path, sys.path_hooks),
    "the interpreter": lambda: (
        sys.getrecursionlimit(),
        sys.gettrace(),
        sys.getprofile(),
        sys.getswitchinterval(),
        sys.get_int_max_str_digits(),
        sys.get_coroutine_origin_tracking_depth(),
        gc.isenabled(),
        gc.get_threshold(),
        gc.get_debug(),
    ),
    "sys.argv": lambda: sys.argv,
    "gc.callbacks": lambda: gc.callbacks,
    "the locale": lambda: _locale.setlocale(_locale.LC_ALL),
    "warnings.filters": lambda: warnings.filters,
    "asyncio": asyncio.get_event_loop_policy,
}

_PROBES_WITHOUT_SECCOMP: dict[str, Callable[[], Any]] = {
    "threads": _thread._count,
    "signal handlers": lambda: [signal.getsignal(each) for each in signal.valid_signals()],
    "masked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    "the CPU timer": lambda: signal.getitimer(signal.ITIMER_PROF)[1],
}

_OWN_PACKAGES = {"edgesim", "workers", "js", "pyodide", "__main__"}
_MISSING = object()
_complete: set[ModuleType] = set()
"""Library modules whose import has ended."""
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
    # A module under import, which the import system makes of the class of ``sys``, is not complete.
    if module in _complete:
        _written.setdefault((module, name), vars(module).get(name, _MISSING))


def _refuse_worker_code(module: ModuleType) -> None:
    # Worker code is known by its builtins: it has a copy of its own (module_namespace.py).
    if sys._getframe(2).f_builtins is not vars(builtins):
        raise TypeError(f"cannot set an attribute of the module {module.__name__!r} itself")


class SharedState:
    """Snapshot of the watched state; to be made before any worker code runs."""

    def __init__(
        self,
        suspended: Callable[[], AbstractContextManager[None]],
        objects: Callable[[], list[Any]],
        vendored: frozenset[str],
    ) -> None:
        """``vendored``: packages whose state is the Worker's own affair, as on the platform."""
        self.suspended = suspended
        # Sealed: worker code that the library calls can look into this object.
        self._freeze_modules = sealed(partial(_freeze_modules, objects))
        self._vendored = vendored
        self._modules: dict[str, ModuleType] = {}
        probes = _PROBES | {
            "logging": _logging,
            "open descriptors": _leak_of_descriptors(),
            "weakref.finalize": _names_of_finalize,
        }
        if (context := _shared_decimal_context()) is not None:
            probes["the decimal context"] = lambda: repr(context)
        if not guard.holds_processes():
            probes |= _PROBES_WITHOUT_SECCOMP
        self._told = False
        self._early: str | None = None
        self._declared: list[str] = []
        self.library = LibraryState(vendored)
        _record_codecs(self._declared)
        self.keep_modules()
        self._before = [(name, probe, _as_it_is(probe())) for name, probe in probes.items()]

    def keep_modules(self) -> None:
        """Take in modules that were imported since, before worker code can lay hands on them."""
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
        for module, name in list(_written):  # the import system ties a module to its package
            if vars(module).get(name) is sys.modules.get(f"{module.__name__}.{name}", _MISSING):
                del _written[module, name]

    def looked_up(self, function: FunctionType) -> None:
        """Worker code has got hold of this function of a library."""
        self.library.watch_function(function)

    def begin_import(self) -> None:
        """A library module is imported: what that changes is not the Worker's doing."""
        if self._early is None:
            self._early = self.library.changed() or self._setting_changed()

    def end_import(self, name: str) -> None:
        """The library module has been imported."""
        with self.suspended():
            if sys.modules.keys() != self._modules.keys():
                self.keep_modules()
                self.library.accept()
                self._accept_settings()
            self.library.watch(name)

    def changed(self) -> str | None:
        """Name of shared state that an invocation has changed; reported once, then None."""
        if self._told:
            return None
        found = self._early or next(iter(self._declared), None) or self.library.changed()
        found = found or self._setting_changed()
        if found is None and not self._has_its_modules():
            found = "sys.modules"
        if found is None and _written:
            found = self._rewritten()
        self._told = found is not None
        return found

    def _setting_changed(self) -> str | None:
        return next((name for name, now, before in self._before if now() != before), None)

    def _accept_settings(self) -> None:
        self._before = [(name, probe, _as_it_is(probe())) for name, probe, _ in self._before]

    def _has_its_modules(self) -> bool:
        """True if each module is still in ``sys.modules``; the library may import more modules."""
        return self._modules == sys.modules or self._modules.items() <= sys.modules.items()

    @staticmethod
    def _rewritten() -> str | None:
        """A module that is not as it was; some of the library set a name and set it back."""
        for (module, name), before in list(_written.items()):
            value = vars(module).get(name, _MISSING)
            if value is not before and sys.modules.get(f"{module.__name__}.{name}") is not value:
                return f"{module.__name__}.{name}"
            del _written[module, name]
        return None


def _as_it_is(value: Any) -> Any:
    """The same value, which stays so when the thing itself changes."""
    match value:
        case tuple():
            return tuple(map(_as_it_is, value))
        case list() | dict():
            return value.copy()
        case _:
            return value


def _logging() -> Any:
    """Configuration of all loggers; a new logger without configuration makes no difference."""
    _remove_default_handler()
    loggers = logging.root.manager.loggerDict.items()
    named = ((name, each) for name, each in loggers if isinstance(each, logging.Logger))
    found = {name: state for name, each in named if (state := _configured(each)) != _UNCONFIGURED}
    manager = logging.root.manager
    return (
        found,
        _configured(logging.root),
        (manager.disable, manager.loggerClass, manager.logRecordFactory),
        (logging.getLoggerClass(), logging.getLogRecordFactory()),
    )


def _remove_default_handler() -> None:
    """Undo what ``logging.warning("...")`` does where nothing is configured.

    Ordinary code logs so.  The handler writes to the console, as ``logging.lastResort`` does, and
    the next call adds it again.
    """
    match logging.root.handlers:
        case [handler] if type(handler) is logging.StreamHandler and _is_default(handler):
            logging.root.handlers.clear()


def _is_default(handler: Any) -> bool:
    formatter = handler.formatter
    return (
        handler.stream is sys.stderr
        and handler.level == logging.NOTSET
        and not handler.filters
        and handler.name is None
        and type(formatter) is logging.Formatter
        and type(formatter._style) is logging.PercentStyle
        and (formatter._fmt, formatter.datefmt) == (logging.BASIC_FORMAT, None)
    )


def _configured(logger: logging.Logger) -> Any:
    return logger.level, logger.propagate, logger.disabled, logger.handlers[:], logger.filters[:]


def _leak_of_descriptors() -> Callable[[], bool]:
    """A probe that is True once invocations have left more than ``SPARE_FILES`` open.

    A new descriptor gets the lowest free number.
    """
    highest = _lowest_free() + SPARE_FILES
    return lambda: _lowest_free() > highest


def _lowest_free() -> int:
    try:
        number = os.dup(2)
    except OSError:  # none is free, or standard error is closed
        return sys.maxsize
    os.close(number)
    return number


def _shared_decimal_context() -> Any:
    """The ``decimal`` context that every invocation inherits, if the Worker's import made one."""
    found = (value for var, value in copy_context().items() if var.name == "decimal_context")
    return next(found, None)


def _record_codecs(declared: list[str]) -> None:
    """Note registrations of codecs and error handlers, which nothing can list."""
    for name in ("register", "register_error", "unregister"):
        real = getattr(codecs, name)

        def noted(*args: Any, _real: Any = real, _name: str = f"codecs.{name}") -> Any:
            declared.append(_name)
            return _real(*args)

        for module in (codecs, sys.modules["_codecs"]):
            vars(module)[name] = noted


_UNCONFIGURED: Any = (logging.NOTSET, True, False, [], [])


def is_frozen(kind: type) -> bool:
    """True for a class of the interpreter's or a library's."""
    return bool(_FLAGS_OF(kind) & _IMMUTABLE) or kind is _SETS_ITSELF


def is_from(packages: frozenset[str], kind: type) -> bool:
    """True for a class of one of these packages."""
    return _module_of(kind).partition(".")[0] in packages


# By the slots: a metaclass of worker code's would run in the name of who asks.
_FLAGS_OF: Any = vars(type)["__flags__"].__get__
_NAMES_OF: Any = vars(type)["__dict__"].__get__


def _module_of(kind: type) -> str:
    module = _NAMES_OF(kind).get("__module__")
    return module if type(module) is str else ""


_SETS_ITSELF = weakref.finalize
"""A class that has its own attributes set at every use; it is compared instead."""


def _names_of_finalize() -> dict[str, Any]:
    own = {"_dirty", "_registered_with_atexit"}
    return {name: value for name, value in vars(_SETS_ITSELF).items() if name not in own}


def freeze_types(vendored: frozenset[str]) -> None:
    """Make every class that is there immutable, but for those of vendored packages.

    Those that are made later are not.
    """
    _freeze(kind for kind in _types(gc.get_objects) if not is_from(vendored, kind))


def _freeze_modules(objects: Callable[[], list[Any]], modules: Container[str]) -> None:
    """Make the classes of these modules immutable."""
    _freeze(kind for kind in _types(objects) if _module_of(kind) in modules)


def _types(objects: Callable[[], list[Any]]) -> list[Any]:
    # Not isinstance: a weak proxy says that it is whatever it stands for.
    return [kind for kind in objects() if issubclass(type(kind), type)]


def _freeze(kinds: Iterable[Any]) -> None:
    for kind in kinds:
        flags_before = _FLAGS_OF(kind)
        if flags_before & _HEAP and kind is not _SETS_ITSELF:
            flags = ctypes.c_ulong.from_address(id(kind) + _FLAGS_OFFSET)
            if (flags.value ^ flags_before) & _STABLE:
                raise RuntimeError("this interpreter keeps the flags of classes elsewhere")
            flags.value |= _IMMUTABLE


class PlatformNames:
    """Names of the platform's own modules, which nobody sets once the isolate has begun.

    Worker code reaches them by way of a function's ``__globals__``, or of a frame's.  Nothing that
    it may have put there is asked anything: that would run its code.
    """

    def __init__(self, others: Iterable[dict[str, Any]]) -> None:
        """``others``: further dicts that stay as they are."""
        own = [(name, each) for name, each in sys.modules.items() if _is_own(name)]
        self._watch([(name, vars(module)) for name, module in own] + [("", d) for d in others])

    def of(self, modules: Iterable[str]) -> PlatformNames:
        """The names of those modules only, and the further dicts."""
        names = {*modules, ""}
        found = PlatformNames.__new__(PlatformNames)
        found._watch([each for each in self._names if each[0] in names])
        return found

    def _watch(self, names: list[tuple[str, dict[str, Any]]]) -> None:
        self._names = names
        self._before: list[dict[str, Any]] = []
        self._marks = VersionMarks([each for _, each in names])
        self._accept()

    def have_changed(self) -> bool:
        """True if a name has been set since, and not by an import."""
        if not self._marks.have_moved():
            return False
        found = sum(
            self._new_names(name, names, before)
            for (name, names), before in zip(self._names, self._before, strict=True)
        )
        self._accept()
        return found < 1

    def _accept(self) -> None:
        self._before = [names.copy() for _, names in self._names]
        self._marks.take()

    @staticmethod
    def _new_names(name: str, names: dict[str, Any], before: dict[str, Any]) -> float:
        """Names that the library has set; less than none where something else has changed."""
        found = 0
        for key, value in names.items():
            if type(key) is not str:
                return -inf
            if before.get(key, _MISSING) is not value:
                submodule = sys.modules.get(f"{name}.{key}") is value
                # warnings.warn leaves the registry where it finds nobody else to blame.
                if not submodule and (key != "__warningregistry__" or type(value) is not dict):
                    return -inf
                found += 1
        return found if len(names.keys() - before.keys()) == len(names) - len(before) else -inf


def _is_own(module: str) -> bool:
    return module.partition(".")[0] in _OWN_PACKAGES

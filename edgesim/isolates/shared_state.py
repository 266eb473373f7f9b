"""What the invocations of one process share, kept from being written to, or watched.

Worker code sees library modules through views of its own (namespace.py), so a patched function is
patched for itself alone.  Library classes are made immutable, as the interpreter's own are: to set
an attribute of one is a TypeError.  So it is for library modules that worker code gets past the
views; what the library itself sets on them is written down.  The rest that is easily reached is
compared after every invocation with what it was.

What a determined program can still reach (a function's ``__globals__``, objects by way of the
collector) is not guarded here: that is what the ``process`` level is for.
"""

from __future__ import annotations

import _thread
import asyncio
import builtins
import ctypes
import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from edgesim.isolates import guard

_IMMUTABLE = 1 << 8
_HEAP = 1 << 9
_STABLE = 0xFFFFFFFF & ~(1 << 19)
"""All flags but the one that a look-up may set (VALID_VERSION_TAG)."""
_FLAGS_OFFSET = 21 * ctypes.sizeof(ctypes.c_void_p)
"""Of ``tp_flags`` in every PyTypeObject of CPython 3.11 to 3.14, 64-bit."""

# The things themselves, not copies: this is asked after every invocation.
_PROBES: dict[str, Callable[[], Any]] = {
    "builtins": lambda: vars(builtins),
    "os.environ": lambda: os.environ._data,
    "sys.path": lambda: sys.path,
    "sys.stdout": lambda: (sys.stdout, sys.stderr, sys.displayhook, sys.excepthook),
    "sys.meta_path": lambda: (sys.meta_path, sys.path_hooks),
    "the interpreter": lambda: (
        sys.getrecursionlimit(),
        sys.gettrace(),
        sys.getprofile(),
        sys.getswitchinterval(),
        gc.isenabled(),
    ),
    "warnings.filters": lambda: warnings.filters,
    "asyncio": asyncio.get_event_loop_policy,
}

_PROBES_WITHOUT_SECCOMP: dict[str, Callable[[], Any]] = {
    "threads": _thread._count,
    "signal handlers": lambda: [signal.getsignal(each) for each in signal.valid_signals()],
    "masked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    "the CPU timer": lambda: signal.getitimer(signal.ITIMER_PROF)[1],
}

_MISSING = object()
_written: dict[tuple[ModuleType, str], Any] = {}
"""What was set on a library module, and what was there before."""


class _Watched(ModuleType):
    """What every library module becomes: the library may set its names, worker code may not."""

    def __setattr__(self, name: str, value: Any) -> None:
        _refuse_worker_code(self)
        _written.setdefault((self, name), vars(self).get(name, _MISSING))
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        _refuse_worker_code(self)
        _written.setdefault((self, name), vars(self).get(name, _MISSING))
        super().__delattr__(name)


def _refuse_worker_code(module: ModuleType) -> None:
    # Worker code is known by its builtins: it has a copy of its own (namespace.py).
    if sys._getframe(2).f_builtins is not vars(builtins):
        raise TypeError(f"cannot set an attribute of the module {module.__name__!r} itself")


class SharedState:
    """What is watched, as it was when the isolate began; to be made before anything runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._modules: dict[str, ModuleType] = {}
        names = frozenset(vars(loop))
        probes = _PROBES | {
            "logging": _logging,
            "the event loop": lambda: _settings(loop, names),
        }
        if not guard.holds_processes():
            probes |= _PROBES_WITHOUT_SECCOMP
        self._told = False
        self.keep_modules()
        self._before = [(name, probe, _as_it_is(probe())) for name, probe in probes.items()]

    def keep_modules(self) -> None:
        """Take in modules that were imported since, before worker code can lay hands on them."""
        new = sys.modules.keys() - self._modules.keys()
        found = {name: sys.modules[name] for name in new}
        for module in found.values():
            if type(module) is ModuleType:
                module.__class__ = _Watched
        _freeze(kind for kind in _types() if kind.__module__ in new)
        self._modules |= found
        for module, name in list(_written):  # the import system ties a module to its package
            if vars(module).get(name) is sys.modules.get(f"{module.__name__}.{name}", _MISSING):
                del _written[module, name]

    def changed(self) -> str | None:
        """What an invocation has changed for all that come after it; once, then None."""
        if self._told:
            return None
        found = None
        for name, probe, before in self._before:
            if probe() != before:
                found = name
                break
        if found is None and not self._has_its_modules():
            found = "sys.modules"
        if found is None and _written:
            found = self._rewritten()
        self._told = found is not None
        return found

    def _has_its_modules(self) -> bool:
        """Whether each is where it was; the library may import more of its own at any time."""
        return self._modules == sys.modules or self._modules.items() <= sys.modules.items()

    @staticmethod
    def _rewritten() -> str | None:
        """A module that is not as it was; some of the library set a name and set it back."""
        for (module, name), before in list(_written.items()):
            if vars(module).get(name, _MISSING) is not before:
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
    """How loggers are configured; a new one that nobody has configured makes no difference."""
    loggers = logging.root.manager.loggerDict.items()
    named = ((name, each) for name, each in loggers if isinstance(each, logging.Logger))
    found = {name: state for name, each in named if (state := _configured(each)) != _UNCONFIGURED}
    return found, _configured(logging.root), logging.root.manager.disable


def _configured(logger: logging.Logger) -> Any:
    return logger.level, logger.propagate, logger.disabled, logger.handlers[:], logger.filters[:]


_UNCONFIGURED: Any = (logging.NOTSET, True, False, [], [])


def _settings(loop: Any, names: frozenset[str]) -> Any:
    """What of an event loop is not in motion: methods that were replaced, and settings."""
    return [name for name in vars(loop).keys() - names if hasattr(type(loop), name)], (
        loop._task_factory,
        loop._exception_handler,
        loop._debug,
        loop._selector,
        loop.wire,
    )


def freeze_types() -> None:
    """Make every class that is there immutable; those that are made later are not."""
    _freeze(_types())


def _types() -> list[Any]:
    # Not isinstance: a weak proxy says that it is whatever it stands for.
    return [kind for kind in gc.get_objects() if issubclass(type(kind), type)]


def _freeze(kinds: Iterable[Any]) -> None:
    for kind in kinds:
        if kind.__flags__ & _HEAP:
            flags = ctypes.c_ulong.from_address(id(kind) + _FLAGS_OFFSET)
            if (flags.value ^ kind.__flags__) & _STABLE:
                raise RuntimeError(f"this interpreter keeps the flags of {kind!r} elsewhere")
            flags.value |= _IMMUTABLE

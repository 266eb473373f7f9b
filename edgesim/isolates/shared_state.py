"""What the invocations of one process share, kept from being written to, or watched.

Worker code sees library modules through views of its own (namespace.py), so a patched function is
patched for itself alone.  Library classes are made immutable, as the interpreter's own are: to set
an attribute of one is a TypeError.  The rest that is easily reached is compared after every
invocation with what it was.

What a determined program can still reach (a function's ``__globals__``, objects by way of the
collector) is not guarded here: that is what the ``process`` level is for.
"""

from __future__ import annotations

import asyncio
import builtins
import ctypes
import gc
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

_IMMUTABLE = 1 << 8
_HEAP = 1 << 9
_STABLE = 0xFFFFFFFF & ~(1 << 19)
"""All flags but the one that a look-up may set (VALID_VERSION_TAG)."""
_FLAGS_OFFSET = 21 * ctypes.sizeof(ctypes.c_void_p)
"""Of ``tp_flags`` in every PyTypeObject of CPython 3.11 to 3.14, 64-bit."""

_PROBES: dict[str, Callable[[], Any]] = {
    "builtins": lambda: dict(vars(builtins)),
    "os.environ": lambda: dict(os.environ),
    "sys.path": lambda: list(sys.path),
    "sys.stdout": lambda: (sys.stdout, sys.stderr, sys.displayhook, sys.excepthook),
    "sys.meta_path": lambda: (list(sys.meta_path), list(sys.path_hooks)),
    "the interpreter": lambda: (
        sys.getrecursionlimit(),
        sys.gettrace(),
        sys.getprofile(),
        sys.getswitchinterval(),
        gc.isenabled(),
    ),
    "warnings.filters": lambda: list(warnings.filters),
    "asyncio": asyncio.get_event_loop_policy,
}


class SharedState:
    """What is watched, as it was when the isolate began."""

    def __init__(self) -> None:
        self._modules = dict(sys.modules)
        self._before = {name: probe() for name, probe in _PROBES.items()}
        self._told = False

    def changed(self) -> str | None:
        """What an invocation has changed for all that come after it; once, then None."""
        if self._told:
            return None
        found = next(
            (name for name, probe in _PROBES.items() if probe() != self._before[name]), None
        )
        if found is None and not self._modules.items() <= sys.modules.items():
            found = "sys.modules"
        self._told = found is not None
        return found


def freeze_types() -> None:
    """Make every class that is there immutable; those that are made later are not."""
    for kind in gc.get_objects():
        # Not isinstance: a weak proxy says that it is whatever it stands for.
        if issubclass(type(kind), type) and kind.__flags__ & _HEAP:
            flags = ctypes.c_ulong.from_address(id(kind) + _FLAGS_OFFSET)
            if (flags.value ^ kind.__flags__) & _STABLE:
                raise RuntimeError(f"this interpreter keeps the flags of {kind!r} elsewhere")
            flags.value |= _IMMUTABLE

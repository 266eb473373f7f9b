"""Time and randomness in worker code: the platform's clock, and random numbers by seed.

Inside an invocation ``time`` and ``datetime`` return the platform's time as of its last message.
So time stands still between two I/O operations, as in production, and follows a virtual clock.
``monotonic`` and ``perf_counter`` return Unix time too, as in production, but do not jump when the
machine's clock is set.  ``random``, ``secrets``, ``uuid`` and ``os.urandom`` use the system's
randomness unless the invocation has a seed.  In global scope (during import) randomness is refused,
as in production, where every request would see the same numbers.  Vendored packages, and all code
if ``ALLOW`` is set in ``os.environ``, get repeatable numbers there.

The library's functions are replaced once, by functions that look up the running invocation.  So the
same code works if several invocations share a process (warm), and in the platform's own process
(inline).  Tried and dropped: a new copy of each module for every invocation (``random`` takes
0.3 ms to execute, and library modules keep the old copy); time-machine, which sets one time for the
whole process.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import os
import random as random_module
import sys
import time as time_module
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from ctypes import py_object, pythonapi
from functools import cached_property
from random import Random
from types import FrameType
from typing import Any

from workers._runtime import GLOBAL_SCOPE, current

from edgesim.isolates.guest.memory_files import FileSystem
from edgesim.isolates.guest.packages import FOLDER

ALLOW = "PYTHON_WORKERS_ALLOW_TOP_LEVEL_ENTROPY"
"""The platform's environment variable: "1" allows random numbers during a module's import."""
_IMPORT_SEED = 43


class Import:
    """The import of a Worker's modules: its random numbers, its files, packages that drew some."""

    def __init__(self) -> None:
        self.drawn_by: set[str] = set()
        self._random: Random | None = None

    @cached_property
    def files(self) -> FileSystem:
        """The files that it writes."""
        return FileSystem()

    @property
    def random(self) -> Random:
        """The source of random numbers, the same for every import."""
        if self._random is None:
            self._random = Random(_IMPORT_SEED)
        return self._random


in_global_scope: ContextVar[Import | None] = ContextVar("in_global_scope", default=None)

_FUNCTIONS: dict[str, Any] = {
    name: value
    for name, value in vars(random_module).items()
    if isinstance(getattr(value, "__self__", None), Random)
}
_WASI_EIO = 29
_real_monotonic = time_module.monotonic
_real_urandom = os.urandom
_real_seed = Random.seed
_real_sleep = time_module.sleep
_real_new_event_loop = asyncio.new_event_loop
_real_all_tasks = asyncio.all_tasks
_strftime = time_module.strftime
_installed = False


class GlobalScopeError(OSError):
    """An operation that is allowed only in handlers was called during the module's import."""

    def __init__(self) -> None:
        super().__init__(_WASI_EIO, GLOBAL_SCOPE)


@contextmanager
def global_scope() -> Iterator[Import]:
    """Mark the block as the import of a Worker's module (global scope)."""
    importing = Import()
    token = in_global_scope.set(importing)
    try:
        yield importing
    finally:
        in_global_scope.reset(token)


def install() -> None:
    """Replace the library's functions in this process, once."""
    global _installed  # noqa: PLW0603 (it changes the process)
    if _installed:
        return
    _installed = True
    # The platform's own loop, at the inline level, must not see an invocation's time.
    asyncio.BaseEventLoop.time = _loop_time  # type: ignore[method-assign]
    for name, clock in (("time", "now"), ("monotonic", "steady"), ("perf_counter", "steady")):
        setattr(time_module, name, _seconds(getattr(time_module, name), clock))
        nanoseconds = f"{name}_ns"
        setattr(time_module, nanoseconds, _nanoseconds(getattr(time_module, nanoseconds), clock))
    time_module.sleep = _sleep
    asyncio.events.new_event_loop = asyncio.new_event_loop = _new_event_loop
    asyncio.tasks.all_tasks = asyncio.all_tasks = _all_tasks
    for name in ("gmtime", "localtime", "ctime"):
        setattr(time_module, name, _of_now(getattr(time_module, name)))
    time_module.strftime = _of_local_time(time_module.strftime)
    time_module.asctime = _of_local_time(time_module.asctime)
    _replace_datetime()
    for name in _FUNCTIONS:
        setattr(random_module, name, _drawn(name))
    os.urandom = _urandom
    random_module._urandom = _urandom  # type: ignore[attr-defined]  # noqa: SLF001
    Random.seed = _seed  # type: ignore[method-assign]


def new_random(seed: int | None) -> Random:
    """Return an invocation's random generator, seeded by ``seed`` or by the system."""
    return Random(int.from_bytes(_real_urandom(32)) if seed is None else seed)


def _loop_time(self: asyncio.BaseEventLoop) -> float:
    return _real_monotonic()


def _sleep(seconds: Any) -> None:
    _refuse_in_global_scope()
    invocation = current.get(None)
    if invocation is None:
        _real_sleep(seconds)
    else:
        invocation.sleep(seconds)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    _refuse_in_global_scope()
    return _real_new_event_loop()


def _all_tasks(loop: asyncio.AbstractEventLoop | None = None) -> set[asyncio.Task[Any]]:
    """Return the invocation's own tasks: code often cancels all, and others share the loop."""
    tasks = _real_all_tasks(loop)
    own = getattr(loop or asyncio.get_running_loop(), "tasks", None)
    if own is not None:  # a loop of its own, at the warm level
        return tasks | {task for task in own if not task.done()}
    invocation = current.get(None)
    if invocation is None:
        return tasks
    return {task for task in tasks if _context_of(task).get(current) is invocation}


def _context_of(task: asyncio.Task[Any]) -> Context:
    """Return the task's context; Python 3.11 has no method for it."""
    if sys.version_info >= (3, 12):
        return task.get_context()
    # The first context that the task refers to; its callbacks have contexts too.
    return next(each for each in gc.get_referents(task) if isinstance(each, Context))


def _refuse_in_global_scope() -> None:
    if in_global_scope.get() is not None:
        raise RuntimeError(GLOBAL_SCOPE)


def _seconds(real: Callable[[], float], clock: str) -> Callable[[], float]:
    def now() -> float:
        invocation = current.get(None)
        return real() if invocation is None else getattr(invocation, clock)()

    return now


def _nanoseconds(real: Callable[[], int], clock: str) -> Callable[[], int]:
    def now() -> int:
        invocation = current.get(None)
        return real() if invocation is None else int(getattr(invocation, clock)() * 1e9)

    return now


def _of_now(real: Callable[..., Any]) -> Callable[..., Any]:
    def of(seconds: float | None = None) -> Any:
        return real(time_module.time() if seconds is None else seconds)

    return of


def _of_local_time(real: Callable[..., str]) -> Callable[..., str]:
    def of(*args: Any) -> str:
        given = [*args, time_module.localtime()] if len(args) == (real is _strftime) else args
        return real(*given)

    return of


def _replace_datetime() -> None:
    """Replace ``datetime.now`` and ``utcnow``, through the dict of the immutable C class."""

    def now(cls: Any, tz: dt.tzinfo | None = None) -> Any:
        return cls.fromtimestamp(time_module.time(), tz)

    def utcnow(cls: Any) -> Any:
        return cls.fromtimestamp(time_module.time(), dt.UTC).replace(tzinfo=None)

    kind = dt.datetime
    (members,) = gc.get_referents(kind.__dict__)
    members["now"] = classmethod(now)
    members["utcnow"] = classmethod(utcnow)
    pythonapi.PyType_Modified(py_object(kind))


def _source() -> Random | None:
    """Return the random generator of the running invocation or import; None outside both."""
    importing = in_global_scope.get()
    if importing is not None:
        return _source_of(importing)
    invocation = current.get(None)
    return None if invocation is None else invocation.random


def _source_of(importing: Import) -> Random:
    """Return the random generator of an import; GlobalScopeError for a Worker's own module.

    The platform allows random numbers there for packages that it knows.
    """
    if os.environ.get(ALLOW) != "1":
        package = _calling_package()
        if package is None:
            raise GlobalScopeError
        importing.drawn_by.add(package)
    return importing.random


def _calling_package() -> str | None:
    """Return the vendored package that draws a number; None if a Worker's module does."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 (a traceback takes longer)
    while frame is not None:
        _, vendored, path = frame.f_code.co_filename.rpartition(f"/{FOLDER}/")
        if vendored:
            return path.partition("/")[0].removesuffix(".py")
        module = str(frame.f_globals.get("__name__")).partition(".")[0]
        if module not in sys.stdlib_module_names and module != "edgesim":
            return None
        frame = frame.f_back
    return None


def _source_if_repeatable() -> Random | None:
    """Return the random generator if its numbers must be repeatable; else None."""
    source = _source()
    repeats = in_global_scope.get() is not None or (source is not None and current.get().seeded)
    return source if repeats else None


def _drawn(name: str) -> Callable[..., Any]:
    real = _FUNCTIONS[name]

    def draw(*args: Any, **kwargs: Any) -> Any:
        source = _source()
        return real(*args, **kwargs) if source is None else getattr(source, name)(*args, **kwargs)

    return draw


def _urandom(size: int) -> bytes:
    source = _source_if_repeatable()
    return _real_urandom(size) if source is None else source.randbytes(size)


def _seed(self: Random, a: Any = None, version: int = 2) -> None:
    if a is None:
        source = _source_if_repeatable()
        if source is not None:
            a = source.getrandbits(128)
    _real_seed(self, a, version)

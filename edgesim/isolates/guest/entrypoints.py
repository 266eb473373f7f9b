"""Entrypoints of a Worker's main module: its classes, or its module-level handlers.

Before compatibility date 2025-08-14, and with the flag ``disable_python_no_global_handlers``, the
handlers are functions ``on_fetch``, ``on_queue``, ``on_scheduled`` and ``on_trace`` of the module;
of a class ``Default``, fetch alone has such a name.  Source: workerd 2026-11-17.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from pyodide.ffi import JsException
from workers._calling import relaxed

from edgesim.isolates.protocol.wire import DEFAULT
from workers import WorkerEntrypoint

Entrypoints = dict[str, Any]
"""Entrypoints of a main module, by name: each takes a Context and an Env, as a class does."""
HANDLERS = ("fetch", "queue", "tail", "scheduled")
_OLD_NAMES = {
    "fetch": "on_fetch",
    "queue": "on_queue",
    "tail": "on_trace",
    "scheduled": "on_scheduled",
}
_RESERVED = {
    *("alarm", "connect", "constructor", "dup", "fetch"),
    *("webSocketClose", "webSocketError", "webSocketMessage"),
}
_LEGACY = (*_OLD_NAMES.values(), "on_tail", "on_alarm", "on_pubsub")


class RefusedCall(JsException):
    """Raised for a method that cannot be called; the exception is the platform's, not Python's."""

    def __init__(self, message: str) -> None:
        super().__init__("TypeError", message)


def entrypoints(module: ModuleType, legacy: bool) -> Entrypoints:
    """Return the module's entrypoints; ImportError if its ``Default`` is missing or invalid.

    ``legacy``: module-level handlers are called.
    """
    default = getattr(module, DEFAULT, None)
    functions = [name for name in _LEGACY if callable(getattr(module, name, None))]
    if legacy and functions:
        if default is not None:
            raise ImportError(
                f"Cannot define multiple default entrypoints: class {DEFAULT} and {functions[0]}"
            )
        return {DEFAULT: _ModuleEntrypoint(module)} | _classes(module, legacy)
    if default is None and functions:
        raise ImportError(
            f"module-level {functions[0]} is not called since compatibility date 2025-08-14: make "
            f"it `{functions[0].removeprefix('on_')}` of class {DEFAULT}(WorkerEntrypoint)"
        )
    if default is None:
        raise ImportError(f"no class {DEFAULT}(WorkerEntrypoint) in the module that `main` names")
    if not (isinstance(default, type) and issubclass(default, WorkerEntrypoint)):
        raise ImportError(f"{DEFAULT} is not a subclass of workers.WorkerEntrypoint")  # noqa: TRY004
    return _classes(module, legacy)


def _classes(module: ModuleType, legacy: bool) -> Entrypoints:
    found = {
        name: each
        for name, each in list(vars(module).items())
        if isinstance(each, type)
        and issubclass(each, WorkerEntrypoint)
        and each is not WorkerEntrypoint
    }
    if not legacy:
        return found
    return {name: _ClassEntrypoint(each) for name, each in found.items()}


def handlers_of(entries: Entrypoints) -> list[str]:
    """Return the names of the platform's handlers that the ``Default`` entrypoint has."""
    entry = entries[DEFAULT]
    if isinstance(entry, _ModuleEntrypoint | _ClassEntrypoint):
        return list(entry.handlers())
    return [name for name in HANDLERS if callable(getattr(entry, name, None))]


def rpc_method(instance: Any, name: str) -> Callable[..., Any]:
    """Return a method that another Worker calls; RefusedCall if it may not.

    workerd refuses its reserved names, and ``ctx`` and ``env``, which the instance itself has.
    """
    if name in _RESERVED:
        raise RefusedCall(f"'{name}' is a reserved method and cannot be called over RPC.")
    if name in {"ctx", "env"} or isinstance(instance, _ModuleHandlers):
        raise RefusedCall(f'The RPC receiver does not implement the method "{name}".')
    # Python's own methods (``__init__``) are left out: nobody means to offer them.
    method = None if name.startswith("__") else getattr(instance, name, None)
    if method is None or not callable(method):
        raise RefusedCall(f"Method {name} does not exist")
    return method  # type: ignore[no-any-return]


class _ClassEntrypoint:
    """A class whose fetch handler is ``on_fetch``."""

    __slots__ = ("_kind",)

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def __call__(self, ctx: Any, env: Any) -> _ClassInstance:
        return _ClassInstance(self._kind(ctx, env))

    def handlers(self) -> Iterable[str]:
        """Handlers that workerd takes the class to have; a call can still find none."""
        for name in HANDLERS:
            if any(callable(getattr(self._kind, each, None)) for each in (name, f"on_{name}")):
                yield name


class _ClassInstance:
    """An instance of such a class; every other method has its own name.

    Its own attribute has a name that no method of worker code has.
    """

    __slots__ = ("__inner",)

    def __init__(self, inner: Any) -> None:
        self.__inner = inner

    def __getattr__(self, name: str) -> Any:
        wanted = _OLD_NAMES["fetch"] if name == "fetch" else name
        method = getattr(self.__inner, wanted, None)
        if not callable(method):
            raise RefusedCall(f"Method {wanted} does not exist")
        return method


class _ModuleEntrypoint:
    """The module-level handlers, which get the raw request, and env and ctx too."""

    __slots__ = ("_module",)

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __call__(self, ctx: Any, env: Any) -> _ModuleHandlers:
        return _ModuleHandlers(self._module, ctx, env)

    def handlers(self) -> Iterable[str]:
        """Handlers that the module has."""
        for name, old in _OLD_NAMES.items():
            if callable(getattr(self._module, old, None)):
                yield name


class _ModuleHandlers:
    """The module-level handlers for one invocation."""

    __slots__ = ("_ctx", "_env", "_module")

    def __init__(self, module: ModuleType, ctx: Any, env: Any) -> None:
        self._module = module
        self._ctx = ctx
        self._env = env

    def __getattr__(self, name: str) -> Callable[..., Any]:
        handler = getattr(self._module, _OLD_NAMES.get(name, name), None)
        if not callable(handler):
            raise AttributeError(name)  # noqa: TRY004 (of this object)

        def call(event: Any, *_: None) -> Any:
            raw = getattr(event, "js_object", event)
            function, *args = relaxed(handler, raw, self._env, self._ctx)
            return function(*args)

        return call

"""Rarely used parts of the SDK: ``handler``, ``patch_env`` and ``import_from_javascript``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import js
from pyodide.ffi import to_js

from workers._bindings import CurrentEnv, PatchedEnv
from workers._entrypoint import wait_until
from workers._http import Request
from workers._runtime import current_env


def handler(func: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a module-level ``on_fetch``: wrap its raw request in the SDK's Request.

    Such a function is never called here, nor on the platform since compatibility date 2025-08-14.
    """

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], js.Request):
            args = (Request(args[0]), *args[1:])
        return func(*args, **kwargs)

    return wrapper


@contextmanager
def patch_env(
    d: dict[str, Any] | Sequence[tuple[str, Any]] | None = None, **kwds: Any
) -> Iterator[None]:
    """Replace names of ``workers.env`` (not of ``self.env``) inside the ``with`` block."""
    changes = {name: to_js(value) for name, value in (dict(d or {}) | kwds).items()}
    token = current_env.set(PatchedEnv(current_env.get(), changes))
    try:
        yield
    finally:
        current_env.reset(token)


def import_from_javascript(module_name: str) -> Any:
    """Return ``cloudflare:workers`` with env and waitUntil; ImportError for any other module."""
    if module_name == "cloudflare:workers":
        return SimpleNamespace(env=CurrentEnv(), waitUntil=wait_until)
    raise ImportError(
        f"Failed to import {module_name!r}: edgesim has no JavaScript modules but "
        "'cloudflare:workers'"
    )

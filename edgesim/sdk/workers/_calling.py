"""Arguments of the fetch handler, the only one that may accept fewer than are passed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def relaxed(handler: Callable[..., Any], *args: Any) -> tuple[Any, ...]:
    """Return the handler and as many of ``args`` as it has positional parameters."""
    function = getattr(handler, "__func__", None)
    code = getattr(function, "__code__", None)
    if code is not None and not code.co_flags & inspect.CO_VARARGS:
        return handler, *args[: code.co_argcount - 1]
    kinds = [each.kind for each in inspect.signature(handler).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return handler, *args
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return handler, *args[: sum(kind in positional for kind in kinds)]

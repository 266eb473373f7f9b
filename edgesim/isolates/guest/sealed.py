"""Functions that worker code can call or reach, but not inspect."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


def sealed(function: Callable[P, R]) -> Callable[P, R]:
    """Return a wrapper that hides the function: no ``__self__``, ``__closure__``, ``__globals__``.

    ``lru_cache`` returns a C object that exposes the function only in an attribute, which is
    removed here; with ``maxsize=0`` it stores no results.  The function must not raise, and must
    not call worker code: both would show its frame.
    """
    opaque: Any = lru_cache(maxsize=0)(function)
    vars(opaque).clear()
    return cast("Callable[P, R]", opaque)


def opaque(end_if_tampered: Callable[[], None], function: Callable[P, R]) -> Callable[P, R]:
    """Like ``sealed``, for a function that worker code can make fail, such as by deep recursion.

    The traceback of its exception contains no frame of the function.  ``end_if_tampered`` is called
    before the function.
    """
    caught = sealed(partial(_caught, end_if_tampered, function))
    return cast("Callable[P, R]", sealed(partial(_raised, caught)))


def _caught(
    end_if_tampered: Callable[[], None], function: Callable[..., Any], *args: Any
) -> Any | BaseException:
    """Return the function's result, or its exception without the function's frames."""
    handled: BaseException | None = None
    try:
        handled = sys.exc_info()[1]
        end_if_tampered()
        return function(*args)
    except BaseException as error:  # noqa: BLE001 (raised again)
        # No calls here: a call may fail too, and its traceback would show this frame.
        each: BaseException | None = error
        while each is not None and each is not handled:
            each.__traceback__ = None
            each = each.__context__
        return error


def _raised(caught: Callable[..., Any], *args: Any) -> Any:
    found = caught(*args)
    if issubclass(type(found), BaseException):
        raise found
    return found


UNINTERRUPTED = {_caught.__code__}
"""Code in which a signal handler must not raise an exception."""

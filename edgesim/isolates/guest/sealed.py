"""Functions that worker code may call, or come across, but not look into."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


def sealed(function: Callable[P, R]) -> Callable[P, R]:
    """The function without a way to it: no ``__self__``, ``__closure__`` or ``__globals__``.

    What ``lru_cache`` makes is C's and keeps the function to itself, but for an attribute that is
    removed here; with ``maxsize=0`` it keeps nothing else.  The function's frame is seen in the
    traceback of what it raises, and by worker code that it calls: it should do neither.
    """
    opaque: Any = lru_cache(maxsize=0)(function)
    vars(opaque).clear()
    return cast("Callable[P, R]", opaque)


def opaque(end_if_meddled: Callable[[], None], function: Callable[P, R]) -> Callable[P, R]:
    """The same, of a function that worker code can make fail, by deep recursion for example.

    No frame of the function is in the traceback of what it raises.  ``end_if_meddled`` is called
    before it.
    """
    caught = sealed(partial(_caught, end_if_meddled, function))
    return cast("Callable[P, R]", sealed(partial(_raised, caught)))


def _caught(
    end_if_meddled: Callable[[], None], function: Callable[..., Any], *args: Any
) -> Any | BaseException:
    """Return the function's result, or what it has raised, without its frames."""
    handled: BaseException | None = None
    try:
        handled = sys.exc_info()[1]
        end_if_meddled()
        return function(*args)
    except BaseException as error:  # noqa: BLE001 (raised again)
        # Nothing is called here: a call may fail as well, and its traceback would show this frame.
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
"""Code that the handler of a signal may not raise an exception in."""

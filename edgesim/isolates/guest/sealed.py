"""Functions that worker code may call, or come across, but not look into."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
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

"""``console``: each call is one log entry with one element per argument."""

from __future__ import annotations

import math
from typing import Any

from pyodide.ffi import SAFE_INTEGER_MAX, JsProxy, jsnull
from workers._runtime import invocation


class Console:
    """``console`` with the five levels of the platform's logs."""

    __slots__ = ()

    def debug(self, *args: Any) -> None:
        invocation().log("debug", _values(args))

    def info(self, *args: Any) -> None:
        invocation().log("info", _values(args))

    def log(self, *args: Any) -> None:
        invocation().log("log", _values(args))

    def warn(self, *args: Any) -> None:
        invocation().log("warn", _values(args))

    def error(self, *args: Any) -> None:
        invocation().log("error", _values(args))


def _values(args: tuple[Any, ...]) -> list[Any]:
    """Convert arguments as the platform's console does: plain values unchanged, others by repr."""
    return [_value(arg) for arg in args]


def _value(arg: Any) -> Any:
    if arg is None or arg is jsnull:
        return None
    if isinstance(arg, float) and not math.isfinite(arg):
        return None
    if isinstance(arg, bool | int | float | str):
        return arg if not isinstance(arg, int) or abs(arg) < SAFE_INTEGER_MAX else str(arg)
    if isinstance(arg, JsProxy):
        return arg._to_wire()
    return repr(arg)


console = Console()

"""The part of the JavaScript global scope that portable Python needs: ``console``."""

from __future__ import annotations

import math
from typing import Any

from pyodide.ffi import JsProxy, jsnull
from workers._runtime import invocation


class Console:
    """``console.log`` and its sisters: one log entry with one element for each argument."""

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
    """As the platform's console sees Python values: plain ones as they are, else their repr."""
    return [_value(arg) for arg in args]


def _value(arg: Any) -> Any:
    if arg is None or arg is jsnull:
        return None
    if isinstance(arg, float) and not math.isfinite(arg):
        return None
    if isinstance(arg, bool | int | float | str):
        return arg if not isinstance(arg, int) or abs(arg) < 1 << 53 else str(arg)
    if isinstance(arg, JsProxy):
        return arg.to_py()
    return repr(arg)


console = Console()


def __getattr__(name: str) -> Any:
    # `from js import JSON` turns this into the ImportError that portable code waits for.
    raise AttributeError(f"js.{name} is not in edgesim: Python code here runs without JavaScript")

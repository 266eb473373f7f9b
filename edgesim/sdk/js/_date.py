"""``Date``: its time is the platform's clock, its time zone is UTC, as on the platform."""

from __future__ import annotations

import math
import time
from datetime import datetime
from typing import Any

from pyodide._dates import clipped, ms_of, parsed
from pyodide.ffi import JsDate, JsProxy, jsnull


class _Date(JsProxy):
    """The constructor ``Date``; called without ``new`` it returns the time as text."""

    def __call__(self, *_: Any) -> str:
        return JsDate(self.now()).toString()

    def new(self, *args: Any) -> JsDate:  # type: ignore[override] # of the object, not of a class
        """Return the time now, of Unix milliseconds, of a text, of a date, or of fields in UTC."""
        if not args:
            return JsDate(self.now())
        if len(args) == 1:
            return JsDate(_ms_of(args[0]))
        return JsDate(self.UTC(*args))

    def now(self) -> int:
        """Return the Unix milliseconds of the platform's clock."""
        return int(time.time() * 1000)

    def parse(self, text: Any) -> float:
        """Return the Unix milliseconds of a text; NaN if it is no date."""
        return _shown(parsed(str(text)))

    def UTC(self, *fields: Any) -> float:
        """Return the Unix milliseconds of year, month (from 0), day, hours and smaller units."""
        year, *rest = map(_number, fields[:7])
        if 0 <= year <= 99:
            year += 1900
        return _shown(ms_of((year, *rest, *(0, 1, 0, 0, 0, 0)[len(rest) :])))

    def __repr__(self) -> str:
        return "function Date() { [native code] }"


def _ms_of(value: Any) -> float:
    if isinstance(value, JsDate | datetime):
        return JsDate(value._ms if isinstance(value, JsDate) else value)._ms
    return parsed(value) if isinstance(value, str) else clipped(_number(value))


def _number(value: Any) -> float:
    if value is jsnull:
        return 0.0
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _shown(ms: float) -> float:
    return ms if math.isnan(ms) else int(ms)


Date = _Date({})

"""JSON as JavaScript reads it."""

from __future__ import annotations

import json
from typing import Any

from pyodide.ffi import SAFE_INTEGER_MAX, JsException


def parse_json(text: str) -> Any:
    """Parse JSON with JavaScript's numbers; JsException (a SyntaxError) if it is invalid."""
    try:
        return json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_no_constant)
    except ValueError as error:
        raise JsException("SyntaxError", str(error)) from None


def _number(text: str) -> int | float:
    number = float(text)
    is_whole = number.is_integer() and abs(number) <= SAFE_INTEGER_MAX
    return int(number) if is_whole else number


def _no_constant(name: str) -> Any:
    raise ValueError(f"Unexpected token {name[0]!r}, {name!r} is not valid JSON")

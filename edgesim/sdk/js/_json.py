"""``JSON`` and ``Object``, which code uses to build plain objects for bindings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pyodide.ffi import (
    UNDEFINED,
    JsArray,
    JsDate,
    JsException,
    JsProxy,
    jsnull,
    to_js,
    to_proxy,
    whole,
)


class _JSON:
    """JavaScript's ``JSON`` with ``parse`` and ``stringify``."""

    def parse(self, text: str) -> Any:
        """Parse JSON to a raw value; JsException (a SyntaxError) if it is invalid."""
        try:
            return to_proxy(json.loads(text, parse_constant=_no_constant, parse_float=_number))
        except ValueError as error:
            raise JsException("SyntaxError", f"{error} in JSON") from None

    def stringify(self, value: Any) -> str:
        """Return the JSON text of a raw value."""
        text = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))
        # A lone surrogate is escaped (the "well-formed JSON.stringify" rule).
        return text.encode("utf-8", "backslashreplace").decode()


class _Object:
    """JavaScript's ``Object`` with ``fromEntries`` only."""

    def fromEntries(self, entries: Iterable[tuple[str, Any]]) -> JsProxy:
        """Return an object of (key, value) pairs, for ``to_js(..., dict_converter=...)``."""
        made = to_js(dict(entries))
        assert isinstance(made, JsProxy)
        return made


def _plain(value: Any) -> Any:
    """Return what JSON is made of: ``toJSON`` of an object that has it, its values otherwise."""
    if type(value) in {JsProxy, JsArray}:
        return _plain(value._value)
    if isinstance(value, JsProxy):
        own = getattr(value, "toJSON", None)
        return _plain(own() if callable(own) else value._to_wire())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not UNDEFINED}
    if isinstance(value, list):
        return [None if item is UNDEFINED else _plain(item) for item in value]
    if isinstance(value, datetime):
        return JsDate(value).toISOString()
    return None if value is jsnull else value


def _number(text: str) -> float:
    return whole(float(text))


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


JSON = _JSON()
Object = _Object()

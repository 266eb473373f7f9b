"""Conversion of values to and from bindings, by the rules of the platform's SDK.

Supported: dict, list, str, bool, float, int, None, bytes, memoryview, datetime, raw JavaScript
values and SDK objects.  tuple, bytearray, awaitables and patterns raise TypeError as on the
platform.  Here only, so do values that the platform silently changes (sets, exceptions, objects).
"""

from __future__ import annotations

import inspect
import re
from datetime import UTC, datetime
from typing import Any

from pyodide.ffi import JsArray, JsBuffer, JsDate, JsProxy, jsnull, to_proxy, whole

_PLAIN = (str, bool, float, bytes, type(None))
_AS_IT_IS = frozenset(_PLAIN)


def to_wire(value: Any) -> Any:
    """Return a copy of ``value`` in wire form; TypeError names an unsupported type."""
    # Exact types first for speed: thousands of records are converted here.
    kind = type(value)
    if kind is dict:
        return {
            key if type(key) is str else str(key): item
            if type(item) in _AS_IT_IS
            else to_wire(item)
            for key, item in value.items()
        }
    if kind is list:
        return [item if type(item) in _AS_IT_IS else to_wire(item) for item in value]
    if kind is int and -(1 << 63) <= value < 1 << 64:
        return value
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise TypeError("An int beyond 64 bits cannot be sent over RPC.")
        return int(value)
    if isinstance(value, dict):
        return {str(key): to_wire(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_wire(item) for item in value]
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, datetime):
        # The platform's Date has no time zone: a naive datetime is UTC.
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if value is jsnull:
        return None
    value = getattr(value, "js_object", value)
    wire = getattr(value, "_to_wire", None)
    if wire is not None:
        return wire()
    refuse(value)
    raise TypeError(
        f"{type(value)} cannot be sent over RPC in edgesim "
        "(on the platform it would arrive empty, or not at all)."
    )


def refuse(value: Any) -> None:
    """Raise TypeError for values that the platform's SDK refuses, even as a handler's result."""
    if isinstance(value, tuple | bytearray | re.Pattern):
        raise TypeError(f"{type(value)} cannot be sent over RPC.")
    if inspect.isawaitable(value):
        raise TypeError(f"Awaitable {type(value)} cannot be sent over RPC.")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | set | frozenset):
        for each in value:
            refuse(each)


def from_wire(value: Any) -> Any:
    """Convert a binding's result to the SDK's types: JsDict, naive datetime (UTC), memoryview."""
    if isinstance(value, dict):
        return JsDict({key: from_wire(item) for key, item in value.items()})
    if isinstance(value, list):
        return [from_wire(item) for item in value]
    if isinstance(value, float):
        return whole(value)
    if isinstance(value, bytes):
        return memoryview(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def from_ms(timestamp_ms: float) -> datetime:
    """Convert Unix milliseconds to the SDK's form of a Date: a naive datetime in UTC."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).replace(tzinfo=None)


def python_to_rpc(value: Any) -> Any:
    """Return the raw JavaScript value that a binding would receive."""
    if value is None:
        return jsnull
    if callable(value) and not isinstance(value, type | JsProxy):
        return value
    raw = getattr(value, "js_object", value)
    return raw if isinstance(raw, JsProxy) else to_proxy(to_wire(value))


def python_from_rpc(obj: Any) -> Any:
    """Convert a raw JavaScript value to the SDK's type; return Python values unchanged."""
    import js

    from workers._blob import wrapped
    from workers._formdata import FormData
    from workers._http import Request, Response

    if obj is jsnull:
        return None
    if isinstance(obj, js.Response):
        return Response(obj)
    if isinstance(obj, js.Request):
        return Request(obj)
    if isinstance(obj, js.FormData):
        return FormData(obj)
    if isinstance(obj, JsBuffer) or type(obj) in {JsProxy, JsArray, JsDate}:
        return from_wire(obj._to_wire())
    return wrapped(obj)


class JsDict(dict[str, Any]):
    """A JavaScript object as a dict whose keys are also attributes, except dict's own names."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

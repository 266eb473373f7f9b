"""Values between the platform and a JavaScript Worker: JSON with tags, {"$": kind, "v": value}.

``guest/values.js`` is the Worker's half.  A tag stands for what JSON cannot hold: bytes, dates,
numbers that are not finite, integers beyond a double, and objects that have a field named ``$``.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

_TAG, _VALUE = "$", "v"
_MARK = b'"$":'
_SAFE_INTEGER_MAX = 2**53 - 1


def dumps(value: Any) -> bytes:
    """Encode a value of the platform; TypeError or RecursionError if it cannot be."""
    return msgspec.json.encode(_packed(value))


def loads(data: bytes) -> Any:
    """Decode what a Worker has sent; ValueError for what is no such value."""
    try:
        value = msgspec.json.decode(data)
        return _unpacked(value) if _MARK in data else value
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error


def _packed(value: Any) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, dict):
        fields = {str(name): _packed(each) for name, each in value.items()}
        return _tagged("object", fields) if _TAG in fields else fields
    if isinstance(value, list | tuple):
        return [_packed(each) for each in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return _tagged("bytes", base64.b64encode(value).decode())
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return _tagged("date", aware.timestamp() * 1000)
    if isinstance(value, msgspec.Struct):
        return _packed(msgspec.to_builtins(value))
    raise TypeError(f"a {type(value).__name__} cannot be sent to a JavaScript Worker")


def _number(value: float) -> Any:
    if isinstance(value, int):
        return value if abs(value) <= _SAFE_INTEGER_MAX else float(value)
    if math.isfinite(value):
        return value
    name = "NaN" if math.isnan(value) else "Infinity"
    return _tagged("number", name if not value < 0 else f"-{name}")


def _tagged(kind: str, value: Any) -> dict[str, Any]:
    return {_TAG: kind, _VALUE: value}


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(each) for each in value]
    if not isinstance(value, dict):
        return value
    if _TAG not in value:
        return {name: _unpacked(each) for name, each in value.items()}
    unpack = _KINDS.get(str(value[_TAG]))
    if unpack is None or _VALUE not in value:
        raise ValueError(f"unknown kind of value {value[_TAG]!r:.50}")
    try:
        return unpack(value[_VALUE])
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ValueError(f"no {value[_TAG]}: {error}") from error


_KINDS: dict[str, Callable[[Any], Any]] = {
    "bytes": lambda text: base64.b64decode(text, validate=True),
    "date": lambda ms: datetime.fromtimestamp(ms / 1000, UTC),
    "number": float,
    "bigint": int,
    "object": lambda fields: {name: _unpacked(each) for name, each in fields.items()},
}

"""Message bodies: conversion between a Worker's value, the stored bytes and the consumer's value.

The rules are those of a Python Worker, where a sent value is converted to JavaScript and a received
one back to Python:

- ``json`` is the output of ``JSON.stringify``: a datetime becomes an ISO string with Z, bytes
  become ``{"0":97,...}``, a set or any other object becomes ``{}``, NaN and the infinities become
  null, and an int of 2**53 or more is refused.  ``1.0`` comes back as ``1``, and a number that
  JavaScript cannot hold as a rounded float.
- ``text`` is a str as UTF-8, ``bytes`` is bytes or a memoryview.
- ``v8`` is V8's structured clone on the platform.  Here it is msgpack, which carries JSON's types
  (with ints of up to 64 bits), bytes and datetimes (to the millisecond, back in UTC); sets,
  errors and other objects, which V8 would clone, are refused rather than changed.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, get_args

import msgspec

from edgesim.errors import PlatformError
from edgesim.model import ContentType

_CONTENT_TYPES: dict[str, ContentType] = {name: name for name in get_args(ContentType)}
_SAFE_INTEGER_MAX = 2**53 - 1
_NESTING_EASY, _NESTING_MARGIN = 400, 64
_EXPONENT_FROM = 1e21  # from here on JavaScript writes an exponent, as Python does


def content_type_of(name: str) -> ContentType:
    """The content type of that name, in any case; PlatformError for an unknown name."""
    known = _CONTENT_TYPES.get(name.lower())
    if known is None:
        raise _type_error(f"Unsupported queue message content type: {name}")
    return known


def encode(value: Any, content_type: ContentType) -> bytes:
    """Encode ``value`` as a body; PlatformError (TypeError in the Worker) if it cannot be."""
    try:
        return _ENCODERS[content_type](value)
    except RecursionError as error:
        raise _type_error("Converting circular structure to JSON") from error


def decode(body: bytes, content_type: ContentType) -> Any:
    """Decode the consumer's value; ValueError if the body does not match its content type."""
    try:
        return _DECODERS[content_type](body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _encode_text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise _wrong_type("text", "string", value)
    # JavaScript writes half a surrogate pair as U+FFFD; Python would refuse it.
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _encode_bytes(value: Any) -> bytes:
    if not isinstance(value, bytes | memoryview):
        raise _wrong_type("bytes", "ArrayBufferView", value)
    return bytes(value)


def _encode_json(value: Any) -> bytes:
    text = json.dumps(_converted(value, _json_leaf), ensure_ascii=False, separators=(",", ":"))
    # Half a surrogate pair is escaped as \udXXX, which JSON.stringify writes too.
    return text.encode("utf-8", "backslashreplace")


def _encode_v8(value: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(_converted(value, _clone_leaf))
    except UnicodeEncodeError as error:
        raise _not_cloned(error.object) from error


def _decode_json(body: bytes) -> Any:
    # Decode here: json.loads would detect some bytes as UTF-16.
    text = body.decode()
    with_depth_margin = text.count("[") + text.count("{") > _NESTING_EASY
    if with_depth_margin:  # test that the envelopes around it may add as many levels
        text = "[" * _NESTING_MARGIN + text + "]" * _NESTING_MARGIN
    value = json.loads(
        text, parse_int=_read_number, parse_float=_read_number, parse_constant=_no_constant
    )
    for _ in range(_NESTING_MARGIN if with_depth_margin else 0):
        (value,) = value
    return value


_ENCODERS: dict[ContentType, Callable[[Any], bytes]] = {
    "json": _encode_json,
    "text": _encode_text,
    "bytes": _encode_bytes,
    "v8": _encode_v8,
}
_DECODERS: dict[ContentType, Callable[[bytes], Any]] = {
    "json": _decode_json,
    "text": bytes.decode,
    "bytes": bytes,
    "v8": msgspec.msgpack.decode,
}


def _converted(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """``value`` with its dicts and lists kept and each value inside them passed to ``leaf``."""
    if isinstance(value, dict):
        return {_property_name(key): _converted(item, leaf) for key, item in value.items()}
    if isinstance(value, list):
        return [_converted(item, leaf) for item in value]
    return leaf(value)


def _property_name(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return str(key).lower()
    if isinstance(key, int):
        return str(key)
    raise _type_error(f"{type(key)} cannot be the name of a property.")


def _json_leaf(value: Any) -> Any:
    _refuse(value)
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        return _json_number(value)
    if isinstance(value, datetime):
        return _in_utc(value).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, bytes | memoryview):
        return {str(index): byte for index, byte in enumerate(bytes(value))}
    return {}


def _json_number(value: float) -> float | None:
    if isinstance(value, int) and abs(value) >= _SAFE_INTEGER_MAX:  # 2**53 - 1 too
        raise _type_error("Do not know how to serialize a BigInt")
    try:
        whole = int(value)
    except (ValueError, OverflowError):  # NaN, the infinities
        return None
    return whole if whole == value and abs(value) < _EXPONENT_FROM else value


def _clone_leaf(value: Any) -> Any:
    _refuse(value)
    if isinstance(value, datetime):
        return _in_utc(value).replace(microsecond=value.microsecond // 1000 * 1000)
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _SAFE_INTEGER_MAX else value
    if value is None or isinstance(value, str | bool | bytes):
        return value
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    raise _not_cloned(value)


def _refuse(value: Any) -> None:
    """Refuse types that the Python SDK passes through no binding, with its error messages."""
    if isinstance(value, tuple | bytearray | re.Pattern):
        raise _type_error(f"{type(value)} cannot be sent over RPC.")
    if inspect.isawaitable(value):
        raise _type_error(f"Awaitable {type(value)} cannot be sent over RPC.")


def _read_number(text: str) -> float:
    number = float(text)
    if number.is_integer() and abs(number) <= _SAFE_INTEGER_MAX:
        return int(number)
    return number


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _in_utc(value: datetime) -> datetime:
    """Convert to UTC; a naive datetime is UTC already, a Worker's only time zone."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _wrong_type(content_type: str, wanted: str, value: Any) -> PlatformError:
    return _type_error(
        f'Content Type "{content_type}" requires a value of type {wanted}, '
        f"but received: {_typeof(value)}"
    )


def _typeof(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "object"


def _not_cloned(value: Any) -> PlatformError:
    return PlatformError(f"{value!r:.100} could not be cloned.", "DataCloneError")


def _type_error(message: str) -> PlatformError:
    return PlatformError(message, "TypeError")

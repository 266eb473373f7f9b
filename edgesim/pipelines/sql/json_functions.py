"""JSON functions of Pipelines' SQL, which DataFusion lacks; each works on one row.

Values and defaults are those of the documentation: a missing value is an empty string, 0 or false.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

PATH_MAX = 8
"""Longest path of keys in one call."""
_ABSENT = object()


def _at(text: str | None, path: Sequence[str | None]) -> Any:
    """The raw JSON at the path; _ABSENT if there is none, or the text is not JSON."""
    if text is None:
        return _ABSENT
    raw = msgspec.Raw(text.encode())
    try:
        for key in path:
            raw = _member(raw, key)
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, KeyError, IndexError, ValueError, RecursionError):
        return _ABSENT
    return raw


def _member(raw: msgspec.Raw, key: str | None) -> msgspec.Raw:
    if key is None:
        raise KeyError
    if bytes(raw).lstrip()[:1] == b"[":
        index = int(key)
        if index < 0:
            raise IndexError
        return msgspec.json.decode(raw, type=list[msgspec.Raw])[index]
    return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])[key]


def _value(text: str | None, path: Sequence[str | None]) -> Any:
    raw = _at(text, path)
    return _ABSENT if raw is _ABSENT else msgspec.json.decode(raw)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def json_contains(text: str | None, *path: str | None) -> bool | None:
    """True if there is a value at the path."""
    return None if text is None else _at(text, path) is not _ABSENT


def json_as_text(text: str | None, *path: str | None) -> str | None:
    """The value as text, a string without its quotes; null if there is none."""
    raw = _at(text, path)
    if raw is _ABSENT:
        return None
    value = msgspec.json.decode(raw)
    if isinstance(value, str) or value is None:
        return value
    return bytes(raw).decode().strip()


def json_get_json(text: str | None, *path: str | None) -> str | None:
    """The value as JSON, unchanged; null if there is none."""
    raw = _at(text, path)
    return None if raw is _ABSENT else bytes(raw).decode().strip()


def json_get_str(text: str | None, *path: str | None) -> str | None:
    """A string; an empty one for any other value."""
    value = _value(text, path)
    return value if isinstance(value, str) else ""


def json_get_int(text: str | None, *path: str | None) -> int | None:
    """An integer of 64 bits; 0 for any other value."""
    value = _value(text, path)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and -(1 << 63) <= value < 1 << 63 else 0


def json_get_float(text: str | None, *path: str | None) -> float | None:
    """A number; 0.0 for any other value."""
    value = _value(text, path)
    try:
        return float(value) if _is_number(value) else 0.0
    except OverflowError:  # an integer of more than 308 digits
        return 0.0


def json_get_bool(text: str | None, *path: str | None) -> bool | None:
    """True or false; false for any other value."""
    value = _value(text, path)
    return value if isinstance(value, bool) else False


def json_length(text: str | None, *path: str | None) -> int | None:
    """Number of members of an object or an array; 0 for any other value."""
    value = _value(text, path)
    return len(value) if isinstance(value, dict | list) else 0


def extract_json(text: str | None, query: str | None) -> list[str] | None:
    """The JSON texts of all values that match a JSONPath; null for what is not JSON.

    Null also for JSON that is nested too deeply for the path: a record must not fail a statement.
    """
    values = _matches(text, query)
    return None if values is None else [msgspec.json.encode(each).decode() for each in values]


def extract_json_string(text: str | None, query: str | None) -> str | None:
    """The first value that matches a JSONPath if it is a string, else null."""
    values = _matches(text, query)
    return values[0] if values and isinstance(values[0], str) else None


def check_path(query: str) -> None:
    """ValueError if it is not a JSONPath."""
    from jsonpath_rfc9535 import JSONPathError
    from jsonpath_rfc9535 import compile as compiled

    try:
        compiled(query)
    except JSONPathError as error:
        raise ValueError(f"{query!r} is not a JSONPath: {error}") from error


def _matches(text: str | None, query: str | None) -> list[Any] | None:
    from jsonpath_rfc9535 import JSONPathError, JSONPathRecursionError, find

    if text is None or query is None:
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    try:
        return list(find(query, value).values())
    except (JSONPathRecursionError, RecursionError):
        return None
    except JSONPathError as error:
        raise ValueError(f"{query!r} is not a JSONPath: {error}") from error


RowFunction = Callable[..., Any]
BY_PATH: dict[str, tuple[RowFunction, str]] = {
    "json_contains": (json_contains, "bool"),
    "json_get": (json_as_text, "string"),
    "json_as_text": (json_as_text, "string"),
    "json_get_json": (json_get_json, "string"),
    "json_get_str": (json_get_str, "string"),
    "json_get_int": (json_get_int, "int64"),
    "json_get_float": (json_get_float, "float64"),
    "json_get_bool": (json_get_bool, "bool"),
    "json_length": (json_length, "int64"),
}
"""Functions of JSON text and up to PATH_MAX keys, with the type of their result."""
BY_JSONPATH: dict[str, tuple[RowFunction, str]] = {
    "extract_json": (extract_json, "list"),
    "extract_json_string": (extract_json_string, "string"),
}
"""Functions of JSON text and a JSONPath."""

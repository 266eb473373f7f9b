"""Keys and values that the type of a configuration file allows at a place in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

_PART = re.compile(r"[^.\[\]]+")


def choices(kind: Any, key: str) -> list[str]:
    """Values that the key (as ``pipelines.events.compression``) may have, if they are listed."""
    found = _kinds(kind, _PART.findall(key))
    return [value for each in found if get_origin(each) is Literal for value in get_args(each)]


def known_keys(kind: Any, key: str) -> list[str]:
    """Keys that the table at ``key`` may have; the key of the whole file is empty."""
    return [name for each in _kinds(kind, _PART.findall(key)) for name in _fields(each)]


def _kinds(kind: Any, path: Sequence[str]) -> Iterator[Any]:
    """Types of the value at the path: several for a union, none for an unknown key."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        yield from _kinds(inner[0], path)
    elif origin in {Union, UnionType}:
        for each in inner:
            yield from _kinds(each, path)
    elif not path:
        yield kind
    elif origin in {list, tuple, dict}:
        yield from _kinds(inner[1 if origin is dict else 0], path[1:])
    elif path[0] in (fields := _fields(kind)):
        yield from _kinds(fields[path[0]], path[1:])


def _fields(kind: Any) -> dict[str, Any]:
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return {}
    return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}

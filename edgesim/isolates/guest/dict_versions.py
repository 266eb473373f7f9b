"""Versions of dicts: CPython keeps a number in each dict that every write to it changes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from ctypes import c_uint64, c_void_p, sizeof
from functools import cache
from typing import Any

_VERSION_OFFSET = 3 * sizeof(c_void_p)
"""Offset of ``ma_version_tag`` in a PyDictObject of CPython 3.11 to 3.13; each write changes it."""
together: Callable[[list[Any]], bytes] = b"".join
"""Read the versions of many tags: copying their memory takes a third of reading them as numbers."""


@cache  # the audit hook refuses ctypes later
def has_versions() -> bool:
    """Return True if this interpreter keeps a version number in each dict."""
    probe = {"a": 1}
    if sys.implementation.name != "cpython" or sys.version_info >= (3, 14):
        return False
    tag = tag_of(probe)
    seen = {tag.value}
    for value in (2, 3):
        probe["a"] = value
        seen.add(tag.value)
    return len(seen) == 3


def has_all_versions() -> bool:
    """Return True if each write changes the version, also through the object of the dict."""
    return has_versions() and sys.version_info < (3, 13)


def tag_of(each: dict[Any, Any]) -> c_uint64:
    """Return the memory of the dict's version; the caller must keep the dict."""
    return c_uint64.from_address(id(each) + _VERSION_OFFSET)


def marks_of(dicts: list[dict[Any, Any]]) -> Callable[[], Any]:
    """Return a function whose result changes when one of the dicts is written to.

    The function looks up no name.  Without dict versions, a change that was undone is not seen.
    """
    gather, over = list, map
    if has_versions():
        join = together
        tags = [tag_of(each) for each in dicts]
        return lambda: join(tags)
    number = id
    return lambda: [
        (gather(over(number, each)), gather(over(number, each.values()))) for each in dicts
    ]

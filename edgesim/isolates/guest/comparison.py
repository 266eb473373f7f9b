"""Comparison of shared state with a snapshot, without running worker code.

``==`` calls methods of the values.  If worker code replaced a value by an object of its own class,
``==`` would run worker code on top of the platform's frames, and the object could claim to be
equal.  So two values count as the same only if they are one object, equal values of exactly the
same plain type, or containers of exactly the same type with the same values.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from operator import is_
from typing import Any

DICTS = (dict, OrderedDict, defaultdict)
# Ids of types, not types: a class of worker code can have a metaclass that defines == and hash.
_DICTS = frozenset(map(id, DICTS))
_SEQUENCES = frozenset(map(id, (list, tuple, deque)))
_SETS = frozenset(map(id, (set, frozenset)))
_PLAIN = frozenset(map(id, (str, bytes, int, float, complex, bool, type(None))))
_MISSING = object()


def are_plain(values: Iterable[Any]) -> bool:
    """Return True if all values are of exactly a plain type, so that ``==`` runs only C code."""
    return all(id(type(value)) in _PLAIN for value in values)


def is_same(now: Any, before: Any) -> bool:
    """Return True if ``now`` equals its snapshot ``before``; the order of a dict is ignored."""
    if now is before:
        return True
    if type(now) is not type(before):
        return False
    kind = id(type(now))
    if kind in _PLAIN:
        return bool(now == before)
    if kind in _DICTS:
        return len(now) == len(before) and (_is_identical(now, before) or _has_all(now, before))
    if kind in _SEQUENCES:
        return len(now) == len(before) and all(map(is_same, now, before))
    if kind in _SETS:
        return len(now) == len(before) and _has_all(dict.fromkeys(now), dict.fromkeys(before))
    return False


def are_identical(now: Sequence[Any], before: Sequence[Any]) -> bool:
    """Return True if both, plain lists or tuples, hold the same objects in the same order."""
    return len(now) == len(before) and all(map(is_, now, before))


def changed_keys(now: dict[Any, Any], before: dict[Any, Any]) -> Iterator[Any]:
    """Yield the keys whose values differ, and the keys that exist in only one of the dicts."""
    kept = 0
    for key, value in now.items():
        old = _value_of(before, key)
        kept += old is not _MISSING
        if not is_same(value, old):
            yield key
    if kept < len(before):
        yield from (key for key in before if not any(is_same(each, key) for each in now))


def has_all_of(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    """Return True if ``now`` has every key of ``before``, with the identical value."""
    return sum(_value_of(before, key) is value for key, value in now.items()) == len(before)


def _is_identical(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    return all(map(is_, now.values(), before.values())) and all(map(is_, now, before))


def _has_all(now: dict[Any, Any], before: dict[Any, Any]) -> bool:
    return all(is_same(value, _value_of(before, key)) for key, value in now.items())


def _value_of(before: dict[Any, Any], key: Any) -> Any:
    """Return the snapshot's value for a current key, which may be an object of worker code.

    A key that is not of a plain type is not hashed, since its class may define the hash.
    """
    if id(type(key)) in _PLAIN:
        return before.get(key, _MISSING)
    return next((value for each, value in before.items() if is_same(each, key)), _MISSING)

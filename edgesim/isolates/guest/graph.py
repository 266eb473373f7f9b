"""The objects that a Worker's loaded modules consist of, if the state of each can be compared.

``walk`` follows references from the modules.  It ends at values that cannot change and at objects
that invocations share anyway (``shared``).  Every other object must be of a type in the lists
below: all of its state is then in the objects it refers to, or in a value that _PROBES reads.  An
object of any other type (a generator, an iterator, ``itertools.count``, ``random.Random``, a cache
of ``functools``) has state that cannot be seen, and the walk returns its type's name.  The lists
name what is known to be safe, so an unknown type is refused.
"""

from __future__ import annotations

import json.scanner
import logging
import operator
import re
import struct
import sys
import types
import typing
from _thread import LockType, RLock
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from ctypes import c_ssize_t, c_void_p, sizeof
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cache, partial
from itertools import chain
from typing import Any

from edgesim.isolates.guest.module_namespace import VIEW
from edgesim.isolates.guest.shared_state import is_frozen
from edgesim.isolates.guest.stand_ins import StandIn

Referents = Callable[..., list[Any]]
"""``gc.get_referents``, which the audit hook refuses to worker code."""


class Probe(typing.NamedTuple):
    """State of an object that is not visited: ``read`` applied to the object."""

    read: Callable[[Any], Any]
    of: Any


_Scanner: Any = vars(json.scanner).get("c_make_scanner")
"""The C type of a JSON decoder's scanner; its memo is empty after each call."""


def _ids(*kinds: Any) -> frozenset[int]:
    # Ids of types, not types: a class of worker code can have a metaclass that defines == and hash.
    return frozenset(map(id, kinds))


_PLAIN = _ids(
    *(str, bytes, int, float, complex, bool, type(None), type(...), type(NotImplemented), range),
    *(types.CodeType, re.Pattern, Decimal, date, timedelta, timezone),
    *(types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType),
)
"""Types of values that cannot change and refer to nothing that can."""
_ZONED = _ids(datetime, time)
_REFERRING = _ids(
    *(tuple, list, set, frozenset, dict, OrderedDict, defaultdict, deque, partial),
    *(types.FunctionType, types.MethodType, types.BuiltinFunctionType, type(re.compile("").match)),
    *(types.MethodWrapperType, types.GetSetDescriptorType, types.MemberDescriptorType),
    *(types.CellType, types.ModuleType, types.MappingProxyType, types.SimpleNamespace),
    *(types.GenericAlias, types.UnionType, staticmethod, classmethod, property, object),
    *(operator.itemgetter, operator.attrgetter, type(vars(Probe)["of"])),
    *(() if _Scanner is None else (_Scanner,)),
)
"""Types whose whole state the garbage collector visits (and PROBES for some)."""
_BASES = _ids(object, dict, list, tuple, str, int, float, bytes, type, types.ModuleType)
"""C types that Python classes may derive from: their whole state is visited or cannot change."""
_DICTS = _ids(dict, OrderedDict, defaultdict)
_TUPLES, _MODULE, _SCANNER = _ids(tuple, frozenset), types.ModuleType, id(_Scanner)
_FILL_OFFSET, _FINGER_OFFSET = 2 * sizeof(c_void_p), 7 * sizeof(c_void_p)
"""Offsets of ``fill`` and ``finger`` in a PySetObject of CPython 3.11 to 3.14."""
_TRAVERSE_OFFSET = 23 * sizeof(c_void_p)
"""Offset of ``tp_traverse`` in a PyTypeObject, two behind ``tp_flags``."""
_FLAGS_OF: Any = vars(type)["__flags__"].__get__
_BASE_OF: Any = vars(type)["__base__"].__get__
_MRO_OF: Any = vars(type)["__mro__"].__get__
_NAMES_OF: Any = vars(type)["__dict__"].__get__
_SIZE_OF: Any = vars(type)["__basicsize__"].__get__
_ITEM_SIZE_OF: Any = vars(type)["__itemsize__"].__get__
NAME_OF: Any = vars(type)["__name__"].__get__
QUALNAME_OF: Any = vars(type)["__qualname__"].__get__
_DICT_OFFSET_OF: Any = vars(type)["__dictoffset__"].__get__
_WEAK_OFFSET_OF: Any = vars(type)["__weakrefoffset__"].__get__
_HEAP, _HAS_GC = 1 << 9, 1 << 14
_ALIASES = ("typing",)


class _Plain:
    """A class as worker code defines it, to recognise others by."""

    __slots__ = ("value",)


class Graph:
    """Objects that a walk has found."""

    def __init__(self) -> None:
        self.found: dict[int, Any] = {}
        """Every compared object, by id."""
        self.dicts: list[dict[Any, Any]] = []
        """Those that are dicts, or instances of classes that derive from dict."""
        self.untagged: set[int] = set()
        """Ids of dicts that the library itself writes to, without a lasting change."""
        self.classes: list[type] = []
        self.probes: list[Probe] = []
        self.unknown: str | None = None
        """Name of the type of an object whose state cannot be compared."""


def walk(roots: Iterable[Any], shared: dict[int, Any], referents: Referents) -> Graph:
    """Return the graph of all objects that can be reached from ``roots``.

    ``shared``: objects that it does not enter, by id.  It runs no code of the objects.
    """
    graph = Graph()
    stack = list(roots)
    while stack and graph.unknown is None:
        each = stack.pop()
        if id(each) in graph.found or id(each) in shared or _is_constant(each, shared):
            continue
        graph.found[id(each)] = each
        if not _enter(each, graph, stack, referents):
            graph.unknown = NAME_OF(type(each))
    return graph


def outside_reference(graph: Graph, roots: Iterable[Any], referents: Referents) -> str | None:
    """Return the name of the type of an object that something else refers to too; None without one.

    ``roots`` are in two places of the caller's each.  What refers to an object from outside could
    be replaced by another reference, and the number would be the same.
    """
    listed = referents(*graph.found.values())
    known = Counter(map(id, listed))  # by the object itself, and by the list
    known.update(known)
    held = (graph.dicts, graph.classes, [probe.of for probe in graph.probes], roots, roots)
    for each in chain(*held):
        known[id(each)] += 1
    del held
    spare = _spare_references()
    for each in graph.found.values():
        if sys.getrefcount(each) != known[id(each)] + spare:
            return str(NAME_OF(type(each)))
    return None


@cache
def _spare_references() -> int:
    """Return the references of an object in a dict, while it is a loop's variable and counted."""
    return next(sys.getrefcount(each) for each in {1: object()}.values())


def _is_constant(value: Any, shared: dict[int, Any]) -> bool:
    kind = type(value)
    if id(kind) in _PLAIN:
        return True
    if id(kind) in _TUPLES:
        return all(id(each) in shared or _is_constant(each, shared) for each in value)
    if id(kind) in _ZONED:
        zone = value.tzinfo
        return zone is None or type(zone) is timezone
    if issubclass(kind, type):
        return is_frozen(value)
    if kind is types.FunctionType:
        return _is_library_method(value, shared)
    if kind is types.BuiltinFunctionType:  # it has no attributes of its own
        return id(value.__self__) in shared or _is_constant(value.__self__, shared)
    return _is_library_member(value, kind) or _is_library_alias(value, kind, shared)


def _is_library_member(value: Any, kind: Any) -> bool:
    """Return True for a member of an enumeration of the library."""
    if not is_frozen(kind):
        return False
    members = _NAMES_OF(kind).get("_member_map_")
    return type(members) is dict and any(each is value for each in members.values())


def _is_library_method(function: types.FunctionType, shared: dict[int, Any]) -> bool:
    """Return True for a function in a library class, which all instances share."""
    names = function.__globals__
    if id(names) not in shared:
        return False
    first, *path = str.split(function.__qualname__, ".")
    found: Any = names.get(first)
    for name in path:
        if not issubclass(type(found), type) or not is_frozen(found):
            return False
        found = _NAMES_OF(found).get(name)
        if type(found) is staticmethod or type(found) is classmethod:
            found = found.__func__
    return found is function


def _is_library_alias(value: Any, kind: Any, shared: dict[int, Any]) -> bool:
    """Return True for a construct of ``typing``, which caches it, of library classes only."""
    if not is_frozen(kind) or _NAMES_OF(kind).get("__module__") not in _ALIASES:
        return False
    names = _dict_of(value)
    args = () if names is None else names.get("__args__", ())
    return type(args) is tuple and _is_constant(args, shared)


def _enter(each: Any, graph: Graph, stack: list[Any], referents: Referents) -> bool:
    """Add the objects that one refers to; return False if its type is not known to be safe."""
    kind = type(each)
    number = id(kind)
    if issubclass(kind, type):
        return _enter_class(each, graph, stack, referents)
    if number in _PROBES:
        graph.probes += [Probe(read, each) for read in _PROBES[number]]
    elif number not in _REFERRING:
        if not _is_made_by_python(kind) or _solid_base(kind) not in _BASES:
            return False
        if _dict_of(each) is None and _has_dict(kind):  # now it has its dict, which is visited
            return False
        stack.append(kind)
    elif number == _SCANNER:
        graph.untagged.update(id(part) for part in referents(each) if type(part) is dict)
    if number in _DICTS or issubclass(kind, dict):
        graph.dicts.append(each)
        stack.extend(dict.keys(each))
    elif number == id(set):
        if not has_finger():
            return False
        words = [c_ssize_t.from_address(id(each) + at) for at in (_FILL_OFFSET, _FINGER_OFFSET)]
        graph.probes += [Probe(_value_of, word) for word in words]
        graph.probes.append(Probe(set.__sizeof__, each))
    stack.extend(referents(each))
    return True


_value_of = operator.attrgetter("value")


def _enter_class(kind: Any, graph: Graph, stack: list[Any], referents: Referents) -> bool:
    meta = type(kind)
    if meta is not type:
        if not _is_made_by_python(meta) or _solid_base(meta) != id(type):
            return False
        stack.append(meta)
    if not _is_made_by_python(kind):
        return False
    graph.classes.append(kind)
    stack.extend(referents(kind))
    return True


def _solid_base(kind: Any) -> int:
    """Return the id of the C type that a Python class derives from; 0 if it adds unknown fields."""
    while _FLAGS_OF(kind) & _HEAP:
        base = _BASE_OF(kind)
        if not _adds_only_known_fields(kind, base):
            return 0
        kind = base
    return id(kind)


def _adds_only_known_fields(kind: Any, base: Any) -> bool:
    """Return True if instances hold no field that the garbage collector does not visit."""
    names = _NAMES_OF(kind)
    slots = sum(type(each) is types.MemberDescriptorType for each in names.values())
    slots += _hidden_slots(kind)
    word = sizeof(c_void_p)
    for offset_of in (_DICT_OFFSET_OF, _WEAK_OFFSET_OF):
        offset = offset_of(kind)  # -1 and less: before the object, but for -8, at its end
        slots += (offset > 0 or offset == -word) and offset != offset_of(base)
    if _ITEM_SIZE_OF(kind) != _ITEM_SIZE_OF(base):
        return False
    return bool(_SIZE_OF(kind) == _SIZE_OF(base) + slots * word)


def _hidden_slots(kind: Any) -> int:
    """Return how many slots edgesim has removed from its own class (module_namespace.py)."""
    return 2 if kind is VIEW else 0


def _is_made_by_python(kind: Any) -> bool:
    """Return True for a class that a class statement has made, whose instances Python visits."""
    flags = _FLAGS_OF(kind)
    if not flags & _HEAP:
        return False
    if not flags & _HAS_GC:  # no field of its own
        base = _BASE_OF(kind)
        return bool(_SIZE_OF(kind) == _SIZE_OF(base))
    return _traverse_of(kind) == _PYTHON_TRAVERSE


def _traverse_of(kind: Any) -> int | None:
    return c_void_p.from_address(id(kind) + _TRAVERSE_OFFSET).value


def _has_dict(kind: Any) -> bool:
    return bool(_DICT_OFFSET_OF(kind))


def _dict_of(value: Any) -> dict[str, Any] | None:
    """Return the ``__dict__`` of an instance, without attribute access that worker code defines."""
    for kind in _MRO_OF(type(value)):
        getter = _NAMES_OF(kind).get("__dict__")
        if type(getter) is types.GetSetDescriptorType and getter.__objclass__ is kind:
            found = getter.__get__(value)
            return found if type(found) is dict else None
        if kind is _MODULE:
            return typing.cast("dict[str, Any]", _MODULE_DICT(value))
    return None


_MODULE_DICT: Any = vars(_MODULE)["__dict__"].__get__
_PYTHON_TRAVERSE = _traverse_of(_Plain)


@cache
def has_finger() -> bool:
    """Return True if the place where ``set.pop`` continues can be read."""
    probe = {1, 2, 3}
    words = [c_ssize_t.from_address(id(probe) + at) for at in (_FILL_OFFSET, _FINGER_OFFSET)]
    before = [word.value for word in words]
    probe.pop()
    after = [word.value for word in words]
    probe.add(4)
    return before == [3, 0] and after[0] == 3 and after[1] > 0 and words[0].value in {3, 4}


def _bytes_of(value: Any) -> bytes:
    return bytes(memoryview(value))


_PROBES: dict[int, tuple[Callable[[Any], Any], ...]] = {
    id(list): (list.__sizeof__,),
    id(deque): (deque.__sizeof__, operator.attrgetter("maxlen")),
    id(bytearray): (bytes, bytearray.__sizeof__),
    id(array): (_bytes_of, array.__sizeof__),
    id(LockType): (repr,),
    id(RLock): (repr,),
    id(struct.Struct): (operator.attrgetter("format"),),
}
"""State that is not visited, by the type of the object: contents, and memory that shows a change
which was undone."""


def shared_objects(*others: Any) -> dict[int, Any]:
    """Return the objects that library modules hold, by id, and ``others``: invocations share them.

    It must be called before the Worker's own modules are loaded.
    """
    found: dict[int, Any] = {id(each): each for each in others}
    for module in list(sys.modules.values()):
        if issubclass(type(module), _MODULE) and type(module) is not StandIn:
            names = _MODULE_DICT(module)
            found[id(module)] = module
            found[id(names)] = names
            found.update((id(each), each) for each in names.values() if _is_shareable(each))
    loggers = logging.root.manager.loggerDict
    found.update((id(each), each) for each in loggers.values())
    return found


def _is_shareable(value: Any) -> bool:
    return id(type(value)) not in _PLAIN and not (
        issubclass(type(value), type) and is_frozen(value)
    )

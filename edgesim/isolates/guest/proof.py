"""Proof that an invocation has left a Worker's loaded modules as they were.

Three things are compared with the moment after loading, in C and by identity, so that no code of
the objects runs:

- *references*: each object still refers to the same objects, in the same order, dicts with the same
  keys; so no value was replaced, added or removed, at any depth;
- *state that is not a reference*: names of classes, contents of byte arrays, state of locks;
- *counts*: each object has as many references and weak references as then.  So nothing outside the
  modules refers to any part of them: no task, suspended generator, frame of an exception, object
  with a destructor or callback of the invocation is left that could read or change them later.

A dict of which CPython keeps a version is compared by that, which also shows a change that was
undone.  The reference is the modules' own graph (graph.py), which ends at what invocations share
anyway.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any
from weakref import getweakrefcount

from edgesim.isolates.guest.comparison import are_identical
from edgesim.isolates.guest.dict_versions import has_all_versions, marks_of
from edgesim.isolates.guest.graph import NAME_OF, QUALNAME_OF, Graph, Probe, Referents


class Proof:
    """The state of a graph.  Create it while nothing outside refers to the graph's objects."""

    def __init__(self, graph: Graph, referents: Referents, growing: Iterable[Any]) -> None:
        """``growing``: dicts that may gain entries, which the caller removes before it compares."""
        self._referents = referents
        grown = {id(each) for each in growing}
        grown |= graph.untagged
        tagged = [each for each in graph.dicts if _is_tagged(each) and id(each) not in grown]
        numbers = {id(each) for each in tagged}
        self._objects = [each for each in graph.found.values() if id(each) not in numbers]
        keyed = [each for each in graph.dicts if id(each) not in numbers]
        self._keyed = [each for each in keyed if type(each) is not OrderedDict]
        self._ordered = [each for each in keyed if type(each) is OrderedDict]
        self._classes = graph.classes
        self._all = tuple(graph.found.values())
        self._probes: list[Probe] = graph.probes
        self._marks: Callable[[], Any] = marks_of(tagged)
        self._now = self._marks()
        self._references = self._referents(*self._objects)
        self._names = self._all_names()
        self._values = self._probed()
        self._counts: list[int] = []
        self._weak: list[int] = []

    def close(self) -> None:
        """Count references.  Call it last: nothing may refer to an object that did not here."""
        self._counts, self._weak = self._count(), self._count_weak()

    def is_unchanged(self) -> bool:
        """Return True if the graph is as it was; runs no code of its objects."""
        return (
            self._marks() == self._now
            and are_identical(self._referents(*self._objects), self._references)
            and are_identical(self._all_names(), self._names)
            and self._probed() == self._values
            and self._count() == self._counts
            and self._count_weak() == self._weak
        )

    def _all_names(self) -> list[Any]:
        """Return the keys of dicts, which are not referents, and the names of classes."""
        return [
            *chain.from_iterable(map(dict.keys, self._keyed)),
            *chain.from_iterable(map(OrderedDict.__iter__, self._ordered)),
            *map(NAME_OF, self._classes),
            *map(QUALNAME_OF, self._classes),
        ]

    def _probed(self) -> list[Any]:
        return [probe.read(probe.of) for probe in self._probes]

    def _count(self) -> list[int]:
        return list(map(sys.getrefcount, self._all))

    def _count_weak(self) -> list[int]:
        return list(map(getweakrefcount, self._all))


def _is_tagged(each: dict[Any, Any]) -> bool:
    return type(each) is dict and has_all_versions()

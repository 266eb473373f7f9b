"""Fingerprints of containers: any change to one of them shows, also one that was undone."""

import colorsys
import gc
import textwrap
from typing import Any

import pytest

from edgesim.isolates.guest.dict_versions import has_all_versions
from edgesim.isolates.guest.fingerprint import Fingerprint
from edgesim.isolates.guest.library_state import LibraryState

pytestmark = pytest.mark.skipif(not has_all_versions(), reason="this Python has no dict versions")


class Things:
    """Some containers, and an object whose attributes are in one of the dicts."""

    def __init__(self):
        self.names = {"a": 1, "b": [2]}
        self.one, self.two = [object(), object()], [object()]

    def fingerprint(self):
        dicts = [self.names, vars(self)]
        return Fingerprint(dicts, [self.one, self.two, self.function], gc.get_referents)

    @staticmethod
    def function(first="x", *, second="y"):
        return first, second


def undone(things):
    before = things.names["a"]
    things.names["a"] = 2
    things.names["a"] = before


def moved(things):
    things.two.insert(0, things.one.pop())


def other():
    """Code without closure, for a function of any signature."""


CHANGES = {
    "a value": lambda things: things.names.update(a=2),
    "an equal value": lambda things: things.names.update(a=True),
    "a new key": lambda things: things.names.update(c=1),
    "a removed key": lambda things: things.names.pop("a"),
    "a change that was undone": undone,
    "an attribute": lambda things: setattr(things, "three", 3),
    "an element": lambda things: things.one.append(1),
    "another element": lambda things: things.two.__setitem__(0, object()),
    "the order": lambda things: things.one.reverse(),
    "an element in the next list": moved,
    "an empty list": lambda things: things.two.clear(),
    "a function's code": lambda things: setattr(things.function, "__code__", other.__code__),
    "a function's defaults": lambda things: setattr(things.function, "__defaults__", ("z",)),
    "a function's keywords": lambda things: setattr(things.function, "__kwdefaults__", {}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_shows(change):
    """A fingerprint is current until something changes in one of the containers."""
    function = Things.function
    before = function.__code__, function.__defaults__, function.__kwdefaults__
    things = Things()
    fingerprint = things.fingerprint()
    assert fingerprint.is_current()
    assert fingerprint.is_current()
    try:
        CHANGES[change](things)
        assert not fingerprint.is_current()
        assert things.fingerprint().is_current()
    finally:
        function.__code__, function.__defaults__, function.__kwdefaults__ = before


def loud():
    """A value that must not be asked for anything."""

    class Loud:
        def __getattribute__(self, name):
            raise AssertionError(name)

        def __eq__(self, other):
            raise AssertionError

        def __hash__(self):
            raise AssertionError

    return Loud()


def test_no_code_of_the_objects_runs():
    """Containers of objects with their own equality and attributes are compared by identity."""
    things = Things()
    things.one.append(loud())
    things.names["loud"] = loud()
    fingerprint = things.fingerprint()
    assert fingerprint.is_current()
    things.one[-1] = loud()
    assert not fingerprint.is_current()


def library_function(first=1, *, second=None):
    """A function that worker code has looked up."""
    return first, second


LIBRARY: Any = library_function
OTHER: Any = Things.function

PARTS = {
    "code": lambda: setattr(library_function, "__code__", (lambda: None).__code__),
    "defaults": lambda: setattr(library_function, "__defaults__", (2,)),
    "keywords": lambda: setattr(library_function, "__kwdefaults__", {"second": 2}),
    "content of keywords": lambda: LIBRARY.__kwdefaults__.update(second=3),
    "an attribute": lambda: setattr(library_function, "mine", 4),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_function_is_compared_after_every_invocation(part):
    """A part that worker code sets late is found, however often nothing had changed before."""
    state = LibraryState()
    state.watch_function(LIBRARY)
    assert [state.changed() for _ in range(3)] == [None] * 3
    code, defaults = library_function.__code__, library_function.__defaults__
    try:
        PARTS[part]()
        assert state.changed() == f"{__name__}.library_function"
    finally:
        library_function.__code__, library_function.__defaults__ = code, defaults
        library_function.__kwdefaults__ = {"second": None}
        vars(library_function).clear()
    assert state.changed() is None
    library_function.__defaults__ = (5,)
    try:
        assert state.changed() == f"{__name__}.library_function"
    finally:
        library_function.__defaults__ = defaults


def test_a_function_that_is_looked_up_later_is_compared():
    """Functions are added to those that were found unchanged."""
    state = LibraryState()
    state.watch_function(LIBRARY)
    assert state.changed() is None
    state.watch_function(OTHER)
    assert state.changed() is None
    before = Things.function.__defaults__
    Things.function.__defaults__ = ("z",)
    try:
        assert state.changed() == f"{__name__}.Things.function"
    finally:
        Things.function.__defaults__ = before


def test_a_later_import_hides_no_change():
    """A change to a package is found also after another package has been added."""
    state = LibraryState()
    state.watch("textwrap")
    vars(textwrap)["mine"] = 1
    try:
        state.watch(colorsys.__name__)
        assert state.changed() == "textwrap.mine"
    finally:
        del vars(textwrap)["mine"]

"""Facts of the platform that ``edgesim check`` relies on hold in the platform's tools."""

import sys

from edgesim.isolates.guest.import_order import (
    ABSENT,
    ADDED,
    LIBRARY,
    NOT_EVERYWHERE,
    REMOVED,
)
from tests.portability.there import PYTHONS, on_the_platform

UNTESTED = {"antigravity", "idlelib", "this"}
"""Modules that ``calling.py`` does not import."""


def test_modules_that_are_absent():
    """ABSENT modules are missing in every Python, NOT_EVERYWHERE modules only in some."""
    missing = [set(on_the_platform(package)["missing"]) for package in PYTHONS]
    assert set.intersection(*missing) - {"idlelib"} == ABSENT - {"idlelib"}
    assert set.union(*missing) - ABSENT == NOT_EVERYWHERE


def test_modules_of_the_library():
    """LIBRARY has the public modules of this Python that every Python of the platform has."""
    there = [set(on_the_platform(package)["library"]) for package in PYTHONS]
    public = {name for name in sys.stdlib_module_names if not name.startswith("_")} - UNTESTED
    assert {name for name in LIBRARY if name in public} == public & set.intersection(*there)
    assert not REMOVED & set.union(*there)
    assert set.union(*there) - set.intersection(*there) == NOT_EVERYWHERE | ADDED

"""Facts of the platform that ``edgesim check`` relies on hold in the platform's tools."""

from edgesim.check.modules import ABSENT, NOT_EVERYWHERE
from tests.portability.there import PYTHONS, on_the_platform


def test_modules_that_are_absent():
    """ABSENT modules are missing in every Python, NOT_EVERYWHERE modules only in some."""
    missing = [set(on_the_platform(package)["missing"]) for package in PYTHONS]
    assert set.intersection(*missing) - {"idlelib"} == ABSENT - {"idlelib"}
    assert set.union(*missing) - ABSENT == NOT_EVERYWHERE

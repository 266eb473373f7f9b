"""What ``edgesim check`` believes of the platform, asked of the platform's own tools."""

from edgesim.check.modules import ABSENT, NOT_EVERYWHERE
from tests.portability.there import PYTHONS, on_the_platform


def test_modules_that_are_absent():
    """What is called absent is so in every Python, what is called unsure in at least one."""
    missing = [set(on_the_platform(package)["missing"]) for package in PYTHONS]
    assert set.intersection(*missing) - {"idlelib"} == ABSENT - {"idlelib"}
    assert set.union(*missing) - ABSENT == NOT_EVERYWHERE

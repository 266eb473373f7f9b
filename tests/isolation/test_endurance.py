"""A short version of `make endure`."""

import pytest

from tests.isolation.endurance import endure

pytestmark = pytest.mark.anyio

GROWTH_MB_MAX = 24
"""Maximum growth of the platform in MB; bodies or frames that are kept would be far more."""


@pytest.mark.parametrize("level", ["process", "warm"])
async def test_honest_requests_among_attackers(level):
    """Every honest request is answered correctly; no process, descriptor or memory is leaked."""
    report = await endure(level, 400)
    assert report.wrong == []
    assert report.right > 350
    assert report.left == set()
    assert report.late["descriptors"] <= report.early["descriptors"]
    assert report.late["MB"] - report.early["MB"] <= GROWTH_MB_MAX

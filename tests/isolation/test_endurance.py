"""The long run of `make endure`, in short."""

import pytest

from tests.isolation.endurance import endure

pytestmark = pytest.mark.anyio

GROWTH_MB_MAX = 24
"""Of the platform, in so short a run: a body or a frame that is kept would be far more."""


@pytest.mark.parametrize("level", ["process", "warm"])
async def test_honest_requests_among_attackers(level):
    """Every honest request is right; no process, descriptor or growing memory is left."""
    report = await endure(level, 400)
    assert report.wrong == []
    assert report.right > 350
    assert report.left == set()
    assert report.late["descriptors"] <= report.early["descriptors"]
    assert report.late["MB"] - report.early["MB"] <= GROWTH_MB_MAX

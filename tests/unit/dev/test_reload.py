"""Watching a project's files."""

from time import monotonic

import anyio
import pytest

from edgesim.config import load_project
from edgesim.dev.reload import changes
from tests.processes import WORKERS

pytestmark = pytest.mark.anyio

AWATCH_SECONDS = 5.0
"""Seconds by which the library itself delays the end of a watch."""


async def test_a_cancelled_watch_ends_soon():
    """Cancelling a watch ends it without the library's delay."""
    began = monotonic()
    with anyio.move_on_after(0.3):
        async for found in changes(load_project(WORKERS)):
            pytest.fail(f"nothing was saved, but {found} changed")
    assert monotonic() - began < AWATCH_SECONDS / 2

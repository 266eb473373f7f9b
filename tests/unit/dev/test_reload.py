"""The watch over a project's files."""

from time import monotonic

import anyio
import pytest

from edgesim.config import load_project
from edgesim.dev.reload import changes
from tests.processes import WORKERS

pytestmark = pytest.mark.anyio

AWATCH_SECONDS = 5.0
"""How long the library itself holds up the end of a watch."""


async def test_a_cancelled_watch_ends_soon():
    """The stop of a project does not wait for the watch of its files."""
    began = monotonic()
    with anyio.move_on_after(0.3):
        async for found in changes(load_project(WORKERS)):
            pytest.fail(f"nothing was saved, but {found} changed")
    assert monotonic() - began < AWATCH_SECONDS / 2

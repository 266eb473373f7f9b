"""The two event loops that async tests run on where time is real.

A test file imports ``on_both_loops``, and every async test in it runs on each.
"""

from typing import Any

import pytest


@pytest.fixture(name="anyio_backend", params=["asyncio", "uvloop"])
def on_both_loops(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Asyncio's own loop, and uvloop, which `dev` and `serve` use."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}

"""Run async tests on both event loops where time is real.

A test file imports ``on_both_loops``; every async test in it then runs on each loop.
"""

from typing import Any

import pytest


@pytest.fixture(name="anyio_backend", params=["asyncio", "uvloop"])
def on_both_loops(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """asyncio's own loop, and uvloop, which `dev` and `serve` use."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}

"""What every test needs."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as edgesim does."""
    return "asyncio"

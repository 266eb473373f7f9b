"""What every test needs."""

from collections.abc import Iterator

import pytest

from tests.servers_nats import NatsServer, nats_server


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as edgesim does."""
    return "asyncio"


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A real JetStream server, started for the first test that wants one."""
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server

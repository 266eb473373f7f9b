"""Fixtures and Hypothesis settings that all tests share."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.driver_urls import OPTION
from tests.servers_nats import NatsServer, nats_server

# The machine's load decides how fast Hypothesis generates examples; it is no property of edgesim.
settings.register_profile("edgesim", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgesim")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the URLs of drivers from other packages."""
    parser.addoption(
        OPTION,
        action="append",
        default=[],
        metavar="URL",
        help="URL of a driver from an installed package; {folder} is replaced by an empty folder",
    )


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as edgesim does."""
    return "asyncio"


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A real JetStream server, started when the first test requests it."""
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server

"""Fixtures and Hypothesis settings that all tests share."""

import compileall
import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from edgesim.system import LINUX
from tests.driver_urls import OPTION
from tests.full_disk import FullDisk, fill_disk
from tests.processes import ROOT
from tests.servers_nats import NatsServer, nats_server

# A shell that starts the tests in the background makes them ignore SIGINT, and edgesim's processes
# would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


def pytest_configure() -> None:
    """Compile edgesim once, before any process runs it.

    The tests start thousands of processes.  If PYTHONDONTWRITEBYTECODE is set, each would compile
    all modules that it imports, which takes a third of the time of a start.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        compileall.compile_dir(ROOT / "edgesim", quiet=1)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the rewritten test modules for the next run, also with PYTHONDONTWRITEBYTECODE.

    To rewrite them takes six seconds of CPU time in each of xdist's workers.
    """
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = before


def pytest_collection_finish() -> None:
    """Spare the garbage collector the millions of objects of the collected tests."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of what Linux alone offers, where edgesim does not use it."""
    if not LINUX:
        for item in items:
            if item.get_closest_marker("linux"):
                item.add_marker(pytest.mark.skip("of a feature of Linux that is not used here"))


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as edgesim does."""
    return "asyncio"


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    """A disk that is full until the test sets ``has_room``."""
    return fill_disk(monkeypatch)


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A real JetStream server, started when the first test requests it."""
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server

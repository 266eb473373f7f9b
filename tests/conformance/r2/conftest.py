"""A bucket over each R2 driver, for the conformance suite."""

from pathlib import Path

import pytest

from edgesim.drivers import BUILT_IN
from tests.driver_urls import url_of_installed
from tests.r2_world import DURABLE, SCHEMES, Store
from tests.servers_s3 import seaweedfs


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """One server for the whole session."""
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


def make_store(scheme: str, request: pytest.FixtureRequest, folder: Path) -> Store:
    """Return the store of a scheme; start the S3 server on first use only."""
    if scheme == "s3":
        return Store.s3(request.getfixturevalue("s3_server"), folder)
    if scheme in BUILT_IN["r2"]:
        return Store.memory() if scheme == "memory" else Store.file(folder)
    return Store(url_of_installed(request, scheme, folder), folder, {})


@pytest.fixture(params=SCHEMES)
def store(request, tmp_path):
    """Each store, empty."""
    return make_store(request.param, request, tmp_path)


@pytest.fixture(params=DURABLE)
def durable(request, tmp_path):
    """Each store that keeps its data after its process exits, empty."""
    return make_store(request.param, request, tmp_path)


@pytest.fixture
async def world(store):
    """An open store with a bucket."""
    async with store.open() as world:
        yield world


@pytest.fixture
def bucket(world):
    """An empty bucket."""
    return world.bucket

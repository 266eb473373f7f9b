"""KV stores for tests: URLs of every driver, and stores opened for virtual time."""

import asyncio
import uuid
from contextlib import asynccontextmanager

from anyio.from_thread import start_blocking_portal

from edgesim import drivers
from tests.driver_urls import url_of_installed
from tests.queues_world import ClockOf, Elsewhere

URLS = {
    "memory": "memory:",
    "sqlite": "sqlite:{folder}/state/kv.db",
    "nats": "nats://{server}/{name}",
}


def url_of(request, folder):
    """Return the URL of a new store for the driver in ``request.param``."""
    if request.param not in URLS:
        return url_of_installed(request, request.param, folder)
    values = {"folder": folder, "name": uuid.uuid4().hex[:8], "server": ""}
    if request.param == "nats":
        values["server"] = request.getfixturevalue("nats").address
    return URLS[request.param].format(**values)


@asynccontextmanager
async def open_in_virtual_time(url, clock):
    """Open the store at ``url`` for tests on a VirtualLoop."""
    open_kv = drivers.opener("kv", url)
    if drivers.properties("kv", url).deterministic:
        async with open_kv(url, clock) as driver:
            yield driver
        return
    beside = ClockOf(clock, asyncio.get_running_loop())
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_kv(url, beside)) as driver,
    ):
        yield Elsewhere(driver, portal)

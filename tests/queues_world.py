"""Helpers for queue tests: virtual time, a scripted consumer, failing drivers."""

import asyncio
import uuid
from contextlib import asynccontextmanager

import anyio
from anyio.from_thread import start_blocking_portal

from edgesim import drivers
from edgesim.clock import Clock
from edgesim.errors import RunError
from edgesim.model import BatchResult, Retry
from edgesim.queues.producer import MessageSendRequest
from tests.driver_urls import url_of_installed


class VirtualClock(Clock):
    """Unix time that follows the loop; ``skew`` is the number of seconds the clock was set by."""

    start = 1_800_000_000.0

    def __init__(self, seed=1):
        super().__init__(seed)
        self.skew = 0.0

    def now(self):
        return self.start + anyio.current_time() + self.skew

    async def advance(self, seconds):
        """Advance virtual time and run everything that falls due."""
        await anyio.sleep(seconds)
        await settled()


async def settled():
    """Wait until no task can run; virtual time does not advance before that."""
    await anyio.sleep(2e-6)  # timers within a microsecond are due together


class Worker:
    """A consumer's handler: records each batch, runs for ``takes`` s, returns ``decide(batch)``."""

    def __init__(self, clock, decide=None, takes=0.0):
        self.clock = clock
        self.decide = decide or (lambda batch: BatchResult(acks=[m.id for m in batch]))
        self.takes = takes
        self.batches = []
        self.times = []
        self.metrics = []
        self.running = 0
        self.most = 0

    async def __call__(self, batch, metrics=None):
        self.batches.append(list(batch))
        self.metrics.append(metrics)
        self.times.append(round(anyio.current_time(), 3))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await anyio.sleep(self.takes)
            return self.decide(batch)
        finally:
            self.running -= 1

    @property
    def bodies(self):
        return [[m.body.decode() for m in batch] for batch in self.batches]

    @property
    def messages(self):
        return [m for batch in self.batches for m in batch]


class Unreliable:
    """A driver whose operations named in ``broken`` fail and those in ``slow`` take a second."""

    def __init__(self, driver):
        self.driver = driver
        self.broken = set()
        self.slow = set()
        self.calls = []

    def __getattr__(self, name):
        async def call(*args):
            self.calls.append(name)
            if name in self.slow:
                await anyio.sleep(1)
            if name in self.broken:
                raise RunError(f"{name} failed")
            return await getattr(self.driver, name)(*args)

        return call


def retry_all(batch, delay_seconds=None):
    """Retry every message of the batch."""
    return BatchResult(retries=[Retry(m.id, delay_seconds) for m in batch])


def texts(*bodies):
    """Build text messages for a batch."""
    return [MessageSendRequest(body.encode(), "text") for body in bodies]


@asynccontextmanager
async def consuming(consumer):
    """Run ``consumer`` until the block ends."""
    async with anyio.create_task_group() as group:
        group.start_soon(consumer.run)
        await settled()
        yield consumer
        group.cancel_scope.cancel()


URLS = {
    "memory": "memory:",
    "sqlite": "sqlite:{folder}/state/queues.db",
    "nats": "nats://{server}/{name}",
}


class ClockOf(Clock):
    """The clock of a virtual loop, for a thread that the loop waits for."""

    def __init__(self, clock, loop):
        super().__init__(seed=2)
        self._clock = clock
        self._loop = loop

    def now(self):
        return self._clock.start + self._loop.time() + self._clock.skew


class Elsewhere:
    """A driver in a thread with a real event loop; virtual time stands still while it works."""

    def __init__(self, driver, portal):
        self._driver = driver
        self._portal = portal

    def __getattr__(self, name):
        async def call(*args):
            return self._portal.call(getattr(self._driver, name), *args)

        return call


@asynccontextmanager
async def open_in_virtual_time(url, clock):
    """Open the store at ``url`` for tests on a VirtualLoop."""
    open_queues = drivers.opener("queues", url)
    if drivers.properties("queues", url).deterministic:
        async with open_queues(url, clock) as driver:
            yield driver
        return
    beside = ClockOf(clock, asyncio.get_running_loop())
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_queues(url, beside)) as driver,
    ):
        yield Elsewhere(driver, portal)


def url_of(request, folder):
    """Return the URL of a new store for the driver in ``request.param``."""
    if request.param not in URLS:
        return url_of_installed(request, request.param, folder)
    values = {"folder": folder, "name": uuid.uuid4().hex[:8], "server": ""}
    if request.param == "nats":
        values["server"] = request.getfixturevalue("nats").address
    return URLS[request.param].format(**values)

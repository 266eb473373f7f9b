"""A bucket with its driver, clock and notifications, for R2 tests."""

import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec

from edgesim import drivers
from edgesim.clock import Clock
from edgesim.config.notifications import NotificationRule
from edgesim.errors import RunError
from edgesim.model import R2Object, Stream, read_all
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.r2.driver import R2Driver
from edgesim.r2.notifications import Notifications
from tests.servers_s3 import S3Server

SCHEMES = drivers.known("r2")
DURABLE = [each for each in SCHEMES if drivers.properties("r2", f"{each}:").durable]
NOW_MS = 1_790_000_000_123
_SEEDS = itertools.count(1)  # a reopened store makes new ids
RULES = {
    "events": [
        NotificationRule("ingest", "object-create", "in/", ".gz"),
        NotificationRule("audit", "object-delete", "in/"),
    ]
}


class StillClock(Clock):
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        super().__init__(seed=next(_SEEDS))
        self.time_ms = NOW_MS
        self._jumped_ms = 0

    def now(self) -> float:
        return self.time_ms / 1000

    def now_ms(self) -> int:
        return self.time_ms

    def boot(self) -> tuple[str, float]:
        """Boot id and seconds since boot: they follow the test's time, except for clock jumps."""
        return "boot", (self.time_ms - self._jumped_ms) / 1000

    def set_ahead(self, step_ms: int) -> None:
        """Step the clock, as an operator who sets the system's clock does."""
        self.time_ms += step_ms
        self._jumped_ms += step_ms


class World(msgspec.Struct):
    """A bucket with its driver, clock and notifications."""

    bucket: Bucket
    driver: R2Driver
    clock: StillClock
    notifications: Notifications

    def other(self, name: str) -> Bucket:
        """Open another bucket of the same store."""
        return Bucket(name, self.driver, self.clock, self.notifications)

    async def told(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the pending notifications as (queue, message)."""
        return [(one.queue, json.loads(one.body)) for one in await self.driver.outbox(1000)]


class Store(msgspec.Struct):
    """Location of a driver's data, so that a test can reopen it."""

    url: str
    state: Path
    keys: dict[str, str]

    @classmethod
    def memory(cls) -> "Store":
        """A store whose data is lost when it is closed."""
        return cls("memory:", Path(), {})

    @classmethod
    def file(cls, folder: Path) -> "Store":
        """A store in a directory."""
        return cls(f"file:{folder / 'r2'}", folder, {})

    @classmethod
    def s3(cls, server: S3Server, folder: Path, options: str = "") -> "Store":
        """A key prefix on the server, used by ``folder`` alone."""
        own = hashlib.md5(str(folder).encode()).hexdigest()
        return cls(
            f"s3://{server.address}?secure=false&region=us-east-1&prefix={own}/{options}",
            folder / "state",
            {"access_key": server.access_key, "secret_key": server.secret_key},
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[World]:
        """Open the store."""
        clock = StillClock()
        notifications = Notifications(RULES, clock, "account-1")
        open_r2 = drivers.opener("r2", self.url)
        async with open_r2(self.url, clock, self.state, **self.keys) as driver:
            bucket = Bucket("events", driver, clock, notifications)
            yield World(bucket, driver, clock, notifications)


async def text(found: R2ObjectBody | R2Object | None) -> bytes:
    """Return the body of the object that ``get`` returned."""
    assert isinstance(found, R2ObjectBody)
    return await read_all(found.body)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """Yield each part unchanged."""
    for part in parts:
        yield part


def stream(*parts: bytes, length: int | None = None) -> Stream:
    """A body of these parts that announces ``length`` bytes (default: the true length)."""
    return Stream(chunks(*parts), sum(map(len, parts)) if length is None else length)


async def eventually(look: Callable[[], Awaitable[Any]], seconds: float = 60) -> Any:
    """Return the first true result of ``look``; ignore a RunError, which is the server's."""
    with anyio.fail_after(seconds):
        while True:
            try:
                found = await look()
            except RunError:
                found = None
            if found:
                return found
            await anyio.sleep(0.05)

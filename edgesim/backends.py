"""The stores that a project's URLs name, opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from edgesim import urls
from edgesim.clickhouse import driver as clickhouse_driver
from edgesim.clickhouse.gateway import Gateway
from edgesim.clock import Clock
from edgesim.config import Environment, Project
from edgesim.queues import driver as queues_driver
from edgesim.queues.driver import QueueDriver
from edgesim.r2 import driver as r2_driver
from edgesim.r2.driver import R2Driver


class Backends(msgspec.Struct):
    """The stores, opened."""

    r2: R2Driver
    queues: QueueDriver
    gateway: Gateway


@asynccontextmanager
async def open_backends(
    project: Project, environment: Environment, clock: Clock
) -> AsyncIterator[Backends]:
    """Open what the project's URLs name; ConfigError or UsageError where one cannot be."""
    where = project.backends
    project.state.mkdir(parents=True, exist_ok=True)
    open_r2 = urls.opener("r2", where.r2, r2_driver.DRIVERS)
    open_queues = urls.opener("queues", where.queues, queues_driver.DRIVERS)
    open_clickhouse = urls.opener("clickhouse", where.clickhouse, clickhouse_driver.DRIVERS)
    keys = {}
    if urls.scheme_of(where.r2) == "s3":
        keys = {"access_key": environment.s3_access_key, "secret_key": environment.s3_secret_key}
    nats = {}
    if urls.scheme_of(where.queues) == "nats":
        nats = {
            "user": environment.nats_user,
            "password": environment.nats_password,
            "token": environment.nats_token,
        }
    async with AsyncExitStack() as stack:
        r2 = await stack.enter_async_context(
            open_r2(where.r2, clock, project.state / "r2-local", **keys)
        )
        queues = await stack.enter_async_context(open_queues(where.queues, clock, **nats))
        database = await stack.enter_async_context(
            open_clickhouse(
                where.clickhouse, environment.clickhouse_user, environment.clickhouse_password
            )
        )
        yield Backends(r2, queues, Gateway(database, project.schema))

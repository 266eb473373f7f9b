"""Opens the stores named by a project's URLs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec

from edgesim import durable, urls
from edgesim.clickhouse import driver as clickhouse_driver
from edgesim.clickhouse.driver import ClickHouseDriver
from edgesim.clickhouse.gateway import Gateway
from edgesim.clock import Clock
from edgesim.config import Environment, Project
from edgesim.queues import driver as queues_driver
from edgesim.queues.driver import QueueDriver
from edgesim.r2 import driver as r2_driver
from edgesim.r2.driver import R2Driver


class Backends(msgspec.Struct):
    """The opened stores of a project."""

    r2: R2Driver
    queues: QueueDriver
    gateway: Gateway


@asynccontextmanager
async def open_backends(
    project: Project, environment: Environment, clock: Clock
) -> AsyncIterator[Backends]:
    """Open the project's stores; ConfigError or UsageError if one cannot be opened."""
    async with AsyncExitStack() as stack:
        r2 = await stack.enter_async_context(open_r2(project, environment, clock))
        queues = await stack.enter_async_context(open_queues(project, environment, clock))
        database = await stack.enter_async_context(open_clickhouse(project, environment))
        yield Backends(r2, queues, Gateway(database, project.schema))


def open_r2(
    project: Project, environment: Environment, clock: Clock
) -> AbstractAsyncContextManager[R2Driver]:
    """Open the object store."""
    where = project.backends.r2
    opener: Any = urls.opener("r2", where, r2_driver.DRIVERS)
    durable.make_folder(project.state)
    keys = {}
    if urls.scheme_of(where) == "s3":
        keys = {"access_key": environment.s3_access_key, "secret_key": environment.s3_secret_key}
    store: AbstractAsyncContextManager[R2Driver] = opener(
        where, clock, project.state / "r2-local", **keys
    )
    return store


def open_queues(
    project: Project, environment: Environment, clock: Clock
) -> AbstractAsyncContextManager[QueueDriver]:
    """Open the message store."""
    where = project.backends.queues
    opener: Any = urls.opener("queues", where, queues_driver.DRIVERS)
    durable.make_folder(project.state)
    nats = {}
    if urls.scheme_of(where) == "nats":
        nats = {
            "user": environment.nats_user,
            "password": environment.nats_password,
            "token": environment.nats_token,
        }
    store: AbstractAsyncContextManager[QueueDriver] = opener(where, clock, **nats)
    return store


def open_clickhouse(
    project: Project, environment: Environment
) -> AbstractAsyncContextManager[ClickHouseDriver]:
    """Open the database."""
    where = project.backends.clickhouse
    opener: Any = urls.opener("clickhouse", where, clickhouse_driver.DRIVERS)
    durable.make_folder(project.state)
    database: AbstractAsyncContextManager[ClickHouseDriver] = opener(
        where, environment.clickhouse_user, environment.clickhouse_password
    )
    return database

"""Opens the stores named by a project's URLs."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

import msgspec

from edgesim import drivers, durable
from edgesim.clickhouse.driver import ClickHouseDriver
from edgesim.clickhouse.gateway import Gateway
from edgesim.clock import Clock
from edgesim.config import Environment, Project
from edgesim.errors import ConfigError
from edgesim.kv.driver import KvDriver
from edgesim.queues.driver import QueueDriver
from edgesim.r2.driver import R2Driver


class Backends(msgspec.Struct):
    """The opened stores of a project; ``kv`` is None if it has no namespaces."""

    r2: R2Driver
    queues: QueueDriver
    gateway: Gateway
    kv: KvDriver | None = None


class Wrapping(Protocol):
    """Drivers to use in place of the opened ones, which they call."""

    def r2(self, driver: R2Driver) -> R2Driver:
        """Wrap the object store."""

    def queues(self, driver: QueueDriver) -> QueueDriver:
        """Wrap the message store."""

    def kv(self, driver: KvDriver) -> KvDriver:
        """Wrap the key-value store."""

    def clickhouse(self, driver: ClickHouseDriver) -> ClickHouseDriver:
        """Wrap the database."""


@asynccontextmanager
async def open_backends(
    project: Project, environment: Environment, clock: Clock, wrapping: Wrapping | None = None
) -> AsyncIterator[Backends]:
    """Open the project's stores; ConfigError or UsageError if one cannot be opened."""
    async with AsyncExitStack() as stack:
        r2 = await stack.enter_async_context(open_r2(project, environment, clock))
        queues = await stack.enter_async_context(open_queues(project, environment, clock))
        kv = None
        if project.uses("kv"):
            kv = await stack.enter_async_context(open_kv(project, environment, clock))
        database = await stack.enter_async_context(open_clickhouse(project, environment))
        name = project.account.clickhouse.schema or "the schema"
        if wrapping is not None:
            r2, queues = wrapping.r2(r2), wrapping.queues(queues)
            database = wrapping.clickhouse(database)
            kv = None if kv is None else wrapping.kv(kv)
        yield Backends(r2, queues, Gateway(database, project.schema, name), kv)


def require_libraries(project: Project) -> None:
    """ConfigError if a library is missing that a store of the project would import later."""
    for name, url in msgspec.structs.asdict(project.backends).items():
        library = drivers.properties(name, url).library
        if (
            library is None
            or not project.uses(name)
            or (name == "clickhouse" and not project.uses_clickhouse)
        ):
            continue
        module, missing, cure = library
        if importlib.util.find_spec(module) is None:
            raise ConfigError(project.file, f"backends.{name}", f"{missing}; {cure}")


def open_r2(
    project: Project, environment: Environment, clock: Clock
) -> AbstractAsyncContextManager[R2Driver]:
    """Open the object store."""
    store: AbstractAsyncContextManager[R2Driver] = _open(
        "r2", project, environment, clock, project.state / "r2-local"
    )
    return store


def open_queues(
    project: Project, environment: Environment, clock: Clock
) -> AbstractAsyncContextManager[QueueDriver]:
    """Open the message store."""
    store: AbstractAsyncContextManager[QueueDriver] = _open("queues", project, environment, clock)
    return store


def open_kv(
    project: Project, environment: Environment, clock: Clock
) -> AbstractAsyncContextManager[KvDriver]:
    """Open the key-value store."""
    store: AbstractAsyncContextManager[KvDriver] = _open("kv", project, environment, clock)
    return store


def open_clickhouse(
    project: Project, environment: Environment
) -> AbstractAsyncContextManager[ClickHouseDriver]:
    """Open the database."""
    database: AbstractAsyncContextManager[ClickHouseDriver] = _open(
        "clickhouse", project, environment
    )
    return database


def _open(primitive: str, project: Project, environment: Environment, *arguments: Any) -> Any:
    """Call the driver's opening function, with the credentials that the driver takes."""
    url = getattr(project.backends, primitive)
    open_store = drivers.opener(primitive, url)
    variables = drivers.properties(primitive, url).credentials
    durable.make_folder(project.state)
    return open_store(url, *arguments, **environment.credentials(variables))

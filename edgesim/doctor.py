"""Checks before a project runs: the machine, the Workers, the backends; each with a fix.

``examine`` runs all of them, for ``edgesim doctor``; ``refuse_early`` runs at the start of ``dev``:
external servers must reply, with these credentials, before the first event arrives.
"""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Literal
from urllib.parse import urlsplit

import anyio

from edgesim import backends, drivers, urls
from edgesim.clickhouse import probe as clickhouse_probe
from edgesim.clickhouse.driver import Statement
from edgesim.clickhouse.probe import described
from edgesim.clock import Clock
from edgesim.config import Environment, Project, WorkerConfig
from edgesim.config.observability import ExportTarget
from edgesim.errors import (
    ClickHouseError,
    ConfigError,
    EdgesimError,
    PlatformError,
    RunError,
    UsageError,
    WorkerLoadError,
    first_error,
)
from edgesim.isolates.host import driver as isolates_driver
from edgesim.isolates.protocol.limits import KERNEL_GUARDS
from edgesim.jail import landlock, seccomp
from edgesim.kv import probe as kv_probe
from edgesim.model import Diagnosis, Stream, read_all
from edgesim.queues import probe as queues_probe
from edgesim.r2 import probe as r2_probe
from edgesim.system import IS_PORTABLE, LINUX, VARIABLE
from edgesim.telemetry.exporter import CURE, MISSING, is_installed

ANSWER_SECONDS = 25.0
"""Longer than the clients' own retries: their errors are more specific than a timeout here."""
EARLY_SECONDS = 5.0
NAME = "edgesim-doctor"
Check = Callable[[Project, Environment, Clock], AsyncIterator[Diagnosis]]


async def examine(
    project: Project, environment: Environment, clock: Clock, *, running: bool
) -> AsyncIterator[Diagnosis]:
    """Yield every finding, in order; ``running``: a process serves this state now."""
    for finding in (_python(), *_kernel()):
        yield finding
    for config in project.workers.values():
        yield await _worker(project, config, clock)
    for name, check in _CHECKS.items():
        if not project.uses(name):
            continue
        own = partial(_unless_open, name, check) if running else check
        async for finding in _in_time(name, own, project, environment, clock):
            yield finding
    async for finding in _telemetry(project.export):
        yield finding


async def _telemetry(target: ExportTarget | None) -> AsyncIterator[Diagnosis]:
    """Check that the extra is installed and that each receiver accepts connections."""
    if target is None:
        return
    if not is_installed():
        status: Literal["problem", "warning"] = "problem" if target.is_required else "warning"
        yield Diagnosis("telemetry", status, f"{target.source} is set, but {MISSING}", CURE)
        return
    for problem in target.problems:
        yield Diagnosis("telemetry", "warning", problem)
    receivers = {urlsplit(url).netloc: url for url in (target.logs, target.traces) if url}
    for url in receivers.values():
        where, parts = urls.redact(url), urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            with anyio.fail_after(EARLY_SECONDS):
                await (await anyio.connect_tcp(parts.hostname or "", port)).aclose()
        except (OSError, TimeoutError) as error:
            said = f"{where} cannot be reached: {error or 'no reply'}"
            cure = f"start the receiver, or correct {target.source}"
            yield Diagnosis("telemetry", "warning", said, cure)
        else:
            yield Diagnosis("telemetry", "ok", f"{where} accepts connections")


async def refuse_early(project: Project, environment: Environment, clock: Clock) -> None:
    """Raise ConfigError, one line with file, key and fix, if a store cannot work.

    A library that a store imports later must be installed, a server must reply.
    """
    backends.require_libraries(project)
    for name, look in _LOOKS.items():
        where, said, cure = getattr(project.backends, name), "", ""
        if not project.uses(name) or drivers.properties(name, where).embedded:
            continue
        try:
            with anyio.fail_after(EARLY_SECONDS):
                await look(project, environment, clock)
        except TimeoutError:
            said = f"{urls.redact(where)} does not answer within {EARLY_SECONDS:.0f} s"
        except (RunError, PlatformError) as error:
            said, cure = error.problem, error.cure
        except BaseExceptionGroup as group:
            cause = first_error(group)
            if cause is None:
                raise
            said, cure = cause.problem, cause.cure
        if said:
            cure = cure or f"start it, see the port, or name another with --{name} URL"
            line = f"{' '.join(said.split())}; {cure} (edgesim doctor says more)"
            raise ConfigError(project.file, f"backends.{name}", line)


def _python() -> Diagnosis:
    said = f"{platform.python_version()}, {platform.platform(terse=True)}"
    return Diagnosis("python", "ok", said)


def _kernel() -> list[Diagnosis]:
    if not LINUX:
        return [_other_system()]
    cure = "a Linux of 5.13 or newer; until then Python's audit hook refuses in its place"
    version = landlock.version()
    return [
        Diagnosis("landlock", "ok", f"version {version} (files, TCP from 4 on)")
        if version
        else Diagnosis("landlock", "warning", "this kernel has none", cure),
        Diagnosis("seccomp", "ok", "available")
        if seccomp.available()
        else Diagnosis("seccomp", "warning", "not available here", cure),
    ]


def _other_system() -> Diagnosis:
    name = f"{VARIABLE} is set" if IS_PORTABLE else f"{platform.system()}, which is not tested"
    said = f"{name}: only Python's audit hook guards isolates, and their memory is not limited"
    return Diagnosis("system", "warning", said, "run Workers that you do not trust on Linux")


async def _worker(project: Project, config: WorkerConfig, clock: Clock) -> Diagnosis:
    level = project.isolation_of(config.name)
    spec = config.spec()
    open_isolates: Any = urls.opener("isolation", level, isolates_driver.drivers_for(spec))
    name = f"worker {config.name}"
    try:
        async with open_isolates(spec, clock) as isolates:
            guards = list(isolates.guards)
    except WorkerLoadError as error:
        return Diagnosis(name, "problem", str(error), f"correct {config.main}")
    said = f"loads at level {level}, guards: {', '.join(guards) or 'none'}"
    if set(KERNEL_GUARDS) <= set(guards) or level == "inline":
        return Diagnosis(name, "ok", said)
    return Diagnosis(name, "warning", said, "see the kernel's guards above")


async def _unless_open(
    name: str, check: Check, project: Project, environment: Environment, clock: Clock
) -> AsyncIterator[Diagnosis]:
    """Check a server; an embedded store is open in the process that serves the state."""
    if drivers.properties(name, getattr(project.backends, name)).embedded:
        yield Diagnosis(name, "ok", "open in the project that runs on this state")
        return
    async for finding in check(project, environment, clock):
        yield finding


async def _in_time(
    name: str, check: Check, project: Project, environment: Environment, clock: Clock
) -> AsyncIterator[Diagnosis]:
    """The findings of a backend's check; errors and timeouts become findings too."""
    found: list[Diagnosis] = []
    url = getattr(project.backends, name)
    where = urls.redact(url)
    try:
        with anyio.fail_after(ANSWER_SECONDS):
            found.extend([finding async for finding in check(project, environment, clock)])
        if (caution := drivers.properties(name, url).caution) is not None:
            found.append(Diagnosis(name, "warning", *caution))
    except TimeoutError:
        said = f"{where} did not answer within {ANSWER_SECONDS:.0f} s"
        cure = "see the port in the URL; restart it, and see its log"
        found.append(Diagnosis(name, "problem", said, cure))
    except (RunError, PlatformError, UsageError) as error:
        found.append(_problem(name, where, error))
    except BaseExceptionGroup as group:
        cause = first_error(group)
        if cause is None:
            raise
        found.append(_problem(name, where, cause))
    for finding in found:
        yield finding


def _problem(name: str, where: str, error: EdgesimError) -> Diagnosis:
    said = " ".join(error.problem.split())
    cure = error.cure or f"start it, or name another with --{name} URL"
    placed = said.startswith(f"{urls.scheme_of(where)}:")
    return Diagnosis(name, "problem", said if placed else f"{where}: {said}", cure)


async def _r2(project: Project, environment: Environment, clock: Clock) -> AsyncIterator[Diagnosis]:
    """Write and read objects in all of the project's buckets, without notifications."""
    async with backends.open_r2(project, environment, clock) as store:
        where = urls.redact(project.backends.r2)
        async for finding in r2_probe.probe(store, _buckets(project), clock, where):
            yield finding


async def _queues(
    project: Project, environment: Environment, clock: Clock
) -> AsyncIterator[Diagnosis]:
    async with backends.open_queues(project, environment, clock) as store:
        where = urls.redact(project.backends.queues)
        async for finding in queues_probe.probe(store, clock, where):
            yield finding


async def _kv(project: Project, environment: Environment, clock: Clock) -> AsyncIterator[Diagnosis]:
    async with backends.open_kv(project, environment, clock) as store:
        async for finding in kv_probe.probe(store, clock, urls.redact(project.backends.kv)):
            yield finding


async def _clickhouse(
    project: Project, environment: Environment, clock: Clock
) -> AsyncIterator[Diagnosis]:
    async with backends.open_clickhouse(project, environment) as database:
        async for finding in clickhouse_probe.probe(database, clock):
            yield finding


async def _look_at_r2(project: Project, environment: Environment, clock: Clock) -> None:
    async with backends.open_r2(project, environment, clock) as store:
        await store.head(_buckets(project)[0], f".{NAME}")


async def _look_at_queues(project: Project, environment: Environment, clock: Clock) -> None:
    async with backends.open_queues(project, environment, clock) as store:
        await store.names()


async def _look_at_kv(project: Project, environment: Environment, clock: Clock) -> None:
    async with backends.open_kv(project, environment, clock) as store:
        await store.get(NAME, NAME, clock.now())


async def _look_at_clickhouse(project: Project, environment: Environment, clock: Clock) -> None:
    async with backends.open_clickhouse(project, environment) as database:
        try:
            answer = await database.execute(Statement("SELECT 1"))
            await read_all(Stream(answer.body))
        except ClickHouseError as error:
            raise RunError(*described(error)) from error


def _buckets(project: Project) -> list[str]:
    """All buckets that the project names; the doctor's own bucket if there are none."""
    return sorted(project.bucket_names()) or [NAME]


_CHECKS: dict[str, Check] = {
    "r2": _r2,
    "queues": _queues,
    "kv": _kv,
    "clickhouse": _clickhouse,
}
_LOOKS: dict[str, Callable[[Project, Environment, Clock], Awaitable[None]]] = {
    "r2": _look_at_r2,
    "queues": _look_at_queues,
    "kv": _look_at_kv,
    "clickhouse": _look_at_clickhouse,
}

"""The running Workers of a project: start, replacement by new versions, lookup by name."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from edgesim import urls
from edgesim.clock import Clock
from edgesim.config import Project, WorkerConfig
from edgesim.config.wrangler import ServiceBindingConfig as ServiceConfig
from edgesim.errors import ConfigError, WorkerLoadError, first_error
from edgesim.isolates.host import driver as isolates_driver
from edgesim.isolates.host.driver import Isolates
from edgesim.isolates.host.restarting import OpenIsolates, open_restarting
from edgesim.model import HttpRequest, HttpResponse, WorkerSpec
from edgesim.runtime.analytics_binding import AnalyticsBinding
from edgesim.runtime.bindings import PipelineBinding, QueueBinding, ServiceBinding
from edgesim.runtime.finished import InvocationSink
from edgesim.runtime.invocation import Binding, Fetch
from edgesim.runtime.kv_binding import KvBinding
from edgesim.runtime.lineage import Lineage
from edgesim.runtime.meter import Metered
from edgesim.runtime.outbound import Outbound
from edgesim.runtime.r2_binding import R2Binding
from edgesim.runtime.worker import Worker
from edgesim.simulator.primitives import Primitives

EXTRA_HANDLERS = "service_binding_extra_handlers"
"""The compatibility flag of a caller that lets it run another Worker's scheduled handler."""

log = structlog.get_logger()


class Workers(Mapping[str, Worker]):
    """The current version of each Worker, by name; ``guards``: its active sandbox guards."""

    def __init__(
        self,
        primitives: Primitives,
        tasks: TaskGroup,
        invocations: asyncio.TaskGroup,
        open_isolates: OpenIsolates,
        sink: InvocationSink | None,
    ) -> None:
        self.guards: dict[str, list[str]] = {}
        self._primitives = primitives
        self._running: dict[str, Worker] = {}
        self._project = primitives.project
        self._tasks = tasks
        self._invocations = invocations
        self._open_isolates = open_isolates
        self._sink = sink
        self._outbound: Outbound
        self._closing = False
        self._retire: dict[str, anyio.Event] = {}

    def __getitem__(self, name: str) -> Worker:
        return self._running[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._running)

    def __len__(self) -> int:
        return len(self._running)

    @property
    def in_flight(self) -> int:
        """Number of invocations of all Workers that have not ended."""
        return sum([worker.in_flight for worker in self._running.values()])

    def inspector_ports(self) -> dict[str, int]:
        """The ports on loopback at which debuggers of Workers are served now, by Worker."""
        ports = {name: worker.inspector_port() for name, worker in self._running.items()}
        return {name: port for name, port in ports.items() if port is not None}

    async def start_all(self, outbound: Outbound) -> None:
        """Start every Worker; raises the first load error."""
        self._outbound = outbound
        errors: list[Exception] = []

        async def start_one(config: WorkerConfig) -> None:
            try:
                await self.start(config)
            except (WorkerLoadError, ConfigError) as error:
                errors.append(error)

        async with anyio.create_task_group() as starting:
            for config in self._project.workers.values():
                starting.start_soon(start_one, config)
        if errors:
            raise errors[0]
        for config in self._project.workers.values():
            _check_entrypoints(config, self._running)

    async def start(self, config: WorkerConfig) -> None:
        """Start a Worker, or replace it by a new version; the old one ends when it is idle.

        WorkerLoadError or ConfigError if it does not load; the old version then stays.
        """
        previous = self._retire.get(config.name)
        try:
            await self._tasks.start(self._serve, config)
        except BaseExceptionGroup as group:
            error = first_error(group)
            if error is None:
                raise
            raise error from group
        if previous is not None:
            previous.set()

    async def update(self) -> list[str]:
        """Restart the Workers whose modules have changed since they started; return their names.

        WorkerLoadError or ConfigError if one does not load; its old version then stays.
        """
        changed = [
            config
            for config in self._project.workers.values()
            if config.version_id() != self._running[config.name].version
        ]
        for config in changed:
            await self.start(config)
        return [config.name for config in changed]

    async def _serve(self, config: WorkerConfig, *, task_status: TaskStatus[None]) -> None:
        retire = anyio.Event()
        clock = self._primitives.clock
        async with open_restarting(self._open_isolates, config.spec(), clock) as isolates:
            worker = self._worker(config, isolates)
            _check_handlers(self._project, config, worker)
            _check_entrypoints(config, self._running | {config.name: worker})
            if config.name in self._running:
                worker.go_on_counting(self._running[config.name])
            else:
                _say_what_is_ignored(config)
            self.guards[config.name] = isolates.guards
            self._running[config.name] = worker
            self._retire[config.name] = retire
            if self._closing:  # it was still starting when the others were retired
                retire.set()
            task_status.started()
            await retire.wait()

    def _worker(self, config: WorkerConfig, isolates: Isolates) -> Worker:
        tails = [self._primitives.tails[tail.target] for tail in config.settings.tail_consumers]
        return Worker(
            config,
            isolates,
            self._bindings(config),
            self._outbound.of(config),
            tails,
            self._sink,
            self._invocations,
            self._primitives.clock,
            self._primitives.tracer,
        )

    def retire(self) -> None:
        """Close every Worker's isolates."""
        self._closing = True
        for event in self._retire.values():
            event.set()

    # --- bindings ---

    def _bindings(self, config: WorkerConfig) -> dict[str, Binding]:
        settings = config.settings
        bindings: dict[str, Binding] = {}
        for bucket in settings.r2_buckets:
            operations = self._primitives.r2_operations.setdefault(bucket.bucket_name, Counter())
            binding = R2Binding(self._primitives.bucket(bucket.bucket_name))
            bindings[bucket.binding] = Metered(binding, operations)
        for namespace in settings.kv_namespaces:
            bindings[namespace.binding] = KvBinding(self._primitives.namespace(namespace.id))
        for producer in settings.queues.producers:
            bindings[producer.binding] = QueueBinding(
                self._primitives.queue(producer.queue), producer.delivery_delay
            )
        for each in settings.analytics_engine_datasets:
            dataset = self._primitives.datasets[each.name]
            bindings[each.binding] = AnalyticsBinding(dataset, self._primitives.clock)
        for pipeline in settings.pipelines:
            target = pipeline.target
            bindings[pipeline.binding] = PipelineBinding(
                self._primitives.streams.get(target) or self._primitives.pipelines[target]
            )
        for service in settings.services:
            bindings[service.binding] = self._service(service, config.name)
        return bindings

    def _service(self, service: ServiceConfig, caller: str) -> ServiceBinding:
        name, entrypoint = service.service, service.target_class
        if name not in self._project.workers:
            return ServiceBinding(partial(self._primitives.clickhouse, caller=caller))

        async def rpc(method: str, args: list[Any], lineage: Lineage) -> Any:
            return await self._running[name].rpc(method, args, lineage, entrypoint)

        async def fetch(request: HttpRequest, lineage: Lineage) -> HttpResponse:
            return await self._running[name].respond(request, lineage, entrypoint)

        async def scheduled(cron: str, time_ms: int | None, lineage: Lineage) -> Any:
            at = self._primitives.clock.now_ms() if time_ms is None else time_ms
            done = await self._running[name].scheduled(cron, int(at), lineage, entrypoint)
            return {"outcome": done.outcome, "noRetry": done.result is True}

        flags = self._project.workers[caller].settings.compatibility_flags
        extra = EXTRA_HANDLERS in flags
        return ServiceBinding(fetch, rpc, scheduled if extra else None)

    async def _fetch(self, name: str, request: HttpRequest, lineage: Lineage) -> HttpResponse:
        # Looked up at every call: a reload replaces the Worker.
        return await self._running[name].fetch(request, lineage)

    def fetch_of(self, name: str) -> Fetch:
        """A function that sends requests to a Worker of this project."""
        return partial(self._fetch, name)


def isolates_of(project: Project) -> OpenIsolates:
    """An opener of each Worker's isolates, at the project's isolation level for that Worker."""

    def open_isolates(spec: WorkerSpec, clock: Clock) -> AbstractAsyncContextManager[Isolates]:
        level = project.isolation_of(spec.name)
        drivers = isolates_driver.drivers_for(spec)
        opener: OpenIsolates = urls.opener("isolation", level, drivers)
        return opener(spec, clock)

    return open_isolates


def _say_what_is_ignored(config: WorkerConfig) -> None:
    if config.ignored_keys:
        keys = ", ".join(config.ignored_keys)
        log.info("wrangler keys without effect here", worker=config.name, keys=keys)
    for warning in config.warnings:
        log.warning(warning, worker=config.name)


def _check_handlers(project: Project, config: WorkerConfig, worker: Worker) -> None:
    """ConfigError if a Worker lacks the handler for an event that the project sends to it."""
    needed = {}
    if config.settings.queues.consumers:
        needed["queue"] = config.file, "queues.consumers"
    for other in project.workers.values():
        for index, tail in enumerate(other.settings.tail_consumers):
            if tail.target == config.name:
                needed.setdefault("tail", (other.file, f"tail_consumers[{index}].service"))
    if config.settings.triggers.crons:
        needed["scheduled"] = config.file, "triggers.crons"
    # As with wrangler, a Worker for crons or queues only can be the entry: a request fails then.
    if config.name == project.entry and not any(map(worker.has, ("queue", "scheduled", "tail"))):
        needed["fetch"] = config.file, "main"
    place = "in its default export" if config.is_javascript else "in its class Default"
    for handler, (file, key) in needed.items():
        if not worker.has(handler):
            named = config.main.name if file == config.file else config.main
            raise ConfigError(file, key, f"{named} has no `{handler}` handler {place}")


def _check_entrypoints(config: WorkerConfig, running: Mapping[str, Worker]) -> None:
    """ConfigError where a service binding names a class that its Worker, once it runs, has not."""
    for index, service in enumerate(config.settings.services):
        target = running.get(service.service)
        if target is not None and service.target_class not in target.entrypoints:
            there = ", ".join(sorted(target.entrypoints))
            problem = (
                f"the main module of Worker {target.name} has no class "
                f"{service.target_class}(WorkerEntrypoint); it has: {there}"
            )
            raise ConfigError(config.file, f"services[{index}].entrypoint", problem)

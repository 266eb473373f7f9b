"""The one wiring place: configuration -> drivers -> primitives -> one tree of tasks.

A Simulator stands over opened backends and can be closed and another opened (a reload of the
configuration) without losing what they hold, be it only in memory.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import anyio
import msgspec
import structlog
from anyio.abc import TaskGroup, TaskStatus

from edgesim import urls
from edgesim.backends import Backends
from edgesim.clock import Clock
from edgesim.config import Project, WorkerConfig
from edgesim.config.project import PullConfig, QueueConfig
from edgesim.config.wrangler import ConsumerConfig
from edgesim.errors import ConfigError, RunError, WorkerLoadError, first_error
from edgesim.isolates import driver as isolates_driver
from edgesim.isolates.driver import Isolates
from edgesim.model import (
    BatchResult,
    HttpRequest,
    HttpResponse,
    Limits,
    Message,
    R2Object,
    WorkerSpec,
)
from edgesim.pipelines.pipeline import Pipeline
from edgesim.queues.consumer import Consumer, ConsumerSettings
from edgesim.queues.producer import Metrics, Queue
from edgesim.queues.pull import PullConsumer, PullSettings
from edgesim.r2.bucket import Bucket
from edgesim.r2.notifications import Notifications, Rule
from edgesim.runtime import delivery
from edgesim.runtime.bindings import PipelineBinding, QueueBinding, ServiceBinding
from edgesim.runtime.invocation import Binding, Fetch
from edgesim.runtime.meter import Metered
from edgesim.runtime.outbound import Outbound, open_outbound
from edgesim.runtime.r2_binding import R2Binding
from edgesim.runtime.request_cf import request_cf
from edgesim.runtime.routing import Router
from edgesim.runtime.schedule import Schedule
from edgesim.runtime.tail import TailConsumer, TraceSink
from edgesim.runtime.worker import Worker

ACCOUNT = "edgesim"
DRAIN_POLL_SECONDS = 0.02
REPLACE_SECONDS = 0.2
"""A pause before a Worker's isolates are replaced, in case they end as soon as they begin."""
CLOSE_SECONDS = 10.0
"""How long a closing Simulator waits for invocations and traces that are on their way."""

SHARED_QUEUES = {"nats"}
"""Stores of queues that other nodes consume from as well."""

OpenIsolates = Callable[[WorkerSpec, Clock], AbstractAsyncContextManager[Isolates]]

log = structlog.get_logger()


class Simulator:
    """A running project.  Made by ``open_simulator``."""

    def __init__(
        self,
        project: Project,
        backends: Backends,
        clock: Clock,
        tasks: TaskGroup,
        invocations: asyncio.TaskGroup,
        open_isolates: OpenIsolates | None = None,
        traces: TraceSink | None = None,
    ) -> None:
        self.project = project
        self.workers: dict[str, Worker] = {}
        self.guards: dict[str, list[str]] = {}
        self.requests = 0
        self.rejected = 0
        self.router = Router(project.workers.values())
        self.cf = request_cf(project.account.cf)
        self._backends = backends
        self._clock = clock
        self._tasks = tasks
        self._invocations = invocations
        self._open_isolates = open_isolates or isolates_of(project)
        self._traces = [] if traces is None else [traces]
        self._closing = False
        self._abandoned = False
        self._retire: dict[str, anyio.Event] = {}
        self._notifications = Notifications(_rules(project), clock, ACCOUNT)
        self._queues: dict[str, Queue] = {}
        self._buckets: dict[str, Bucket] = {}
        self._r2_operations: dict[str, Counter[str]] = {}
        self._pipelines = {
            name: Pipeline(
                name,
                config,
                self.bucket(config.bucket),
                project.state / "pipelines" / name,
                clock,
            )
            for name, config in project.account.pipelines.items()
        }
        self._tails = {
            tail.target: TailConsumer(tail.target, project.account.tail)
            for worker in project.workers.values()
            for tail in worker.settings.tail_consumers
        }
        self._consumers = [
            self._consumer(worker, config)
            for worker in project.workers.values()
            for config in worker.settings.queues.of_type("worker")
        ]
        self.pull_consumers = {
            name: self._pull_consumer(name, config)
            for name, config in project.pull_consumers().items()
        }
        self._schedules = [
            Schedule(worker.name, cron, clock)
            for worker in project.workers.values()
            for cron in worker.settings.triggers.crons
        ]

    # --- what others hold ---

    def queue(self, name: str) -> Queue:
        """The queue of that name; it exists as soon as it is named."""
        if name not in self._queues:
            config = self.project.account.queues.get(name) or QueueConfig()
            self._queues[name] = Queue(
                name,
                self._backends.queues,
                self._clock,
                delivery_delay=config.delivery_delay,
                retention_seconds=config.retention_seconds,
            )
        return self._queues[name]

    def bucket(self, name: str) -> Bucket:
        """The bucket of that name; it exists as soon as it is named."""
        if name not in self._buckets:
            self._buckets[name] = Bucket(name, self._backends.r2, self._clock, self._notifications)
        return self._buckets[name]

    def queue_names(self) -> set[str]:
        """Every queue that the project or its messages name."""
        rules = _rules(self.project).values()
        return {
            *self._queues,
            *self.project.account.queues,
            *(rule.queue for bucket in rules for rule in bucket),
            *(
                producer.queue
                for worker in self.project.workers.values()
                for producer in worker.settings.queues.producers
            ),
        }

    def bucket_names(self) -> set[str]:
        """Every bucket that the project names."""
        return {
            *self._buckets,
            *self.project.account.r2,
            *(
                bucket.bucket_name
                for worker in self.project.workers.values()
                for bucket in worker.settings.r2_buckets
            ),
        }

    async def objects(self, bucket: str, prefix: str) -> AsyncIterator[R2Object]:
        """All objects of a bucket with that prefix, in order of their keys."""
        cursor: str | None = None
        while True:
            page = await self.bucket(bucket).list(prefix=prefix, cursor=cursor)
            for found in page.objects:
                yield found
            if not page.truncated:
                return
            cursor = page.cursor

    async def notify_again(self, bucket: str, found: R2Object) -> int:
        """Send the notifications of an object that is there once more; how many those are."""
        messages = self._notifications.messages_again(bucket, found)
        for message in messages:
            await self._notify(message.queue, message.body)
        return len(messages)

    async def fetch(self, request: HttpRequest, worker: str | None = None) -> HttpResponse:
        """A request from outside, for the entry Worker unless another is named (KeyError)."""
        if not request.cf:
            request = msgspec.structs.replace(request, cf=self.cf)
        response = await self.workers[worker or self.project.entry].fetch(request)
        if worker in {None, self.project.entry}:
            self.requests += 1
            self.rejected += response.status >= 400
        return response

    async def scheduled(self, worker: str, cron: str, scheduled_ms: int | None = None) -> str:
        """Run a scheduled handler now, as of that time or as of now; its outcome."""
        time_ms = self._clock.now_ms() if scheduled_ms is None else scheduled_ms
        return (await self.workers[worker].scheduled(cron, time_ms)).outcome

    async def clickhouse(self, request: HttpRequest, depth: int = 0) -> HttpResponse:
        """A request to the ClickHouse gateway."""
        return await self._backends.gateway.fetch(request)

    # --- the state of things ---

    @property
    def traces_pending(self) -> int:
        """Traces that no tail handler has finished with yet."""
        return sum(tail.pending for tail in self._tails.values())

    async def stats(self) -> dict[str, Any]:
        """Counters per stage, since this Simulator was opened, and what is stored now."""
        consumers: dict[str, Consumer | PullConsumer] = {**self.pull_consumers}
        consumers |= {consumer.queue.name: consumer for consumer in self._consumers}
        queues = {}
        for name in sorted(self._queues.keys() | set(await self._backends.queues.names())):
            consumer = consumers.get(name)
            queues[name] = {
                "backlog": (await self.queue(name).depth()).messages,
                "operations": self.queue(name).operations,
                "delivered": consumer.delivered if consumer else 0,
                "retried": consumer.retried if consumer else 0,
                "dead": consumer.dead + consumer.lost if consumer else 0,
            }
        buckets = sorted(self._buckets.keys() | set(await self._backends.r2.buckets()))
        return {
            "receiver": {"requests": self.requests, "rejected": self.rejected},
            "tail": {
                "items": sum(tail.items for tail in self._tails.values()),
                "lost": sum(tail.lost for tail in self._tails.values()),
                "pending": self.traces_pending,
            },
            "pipelines": {
                name: {
                    "records": pipeline.records,
                    "bytes": pipeline.bytes,
                    "pending": pipeline.pending,
                    "objects": pipeline.objects,
                    "dropped": dict(pipeline.dropped),
                }
                for name, pipeline in self._pipelines.items()
            },
            "r2": {name: await self._bucket_stats(name) for name in buckets},
            "queues": queues,
            "invocations": {name: dict(worker.outcomes) for name, worker in self.workers.items()},
            "cpu_ms": {name: round(worker.cpu_ms, 3) for name, worker in self.workers.items()},
        }

    async def _bucket_stats(self, name: str) -> dict[str, int]:
        objects, size = await self._backends.r2.usage(name)
        operations = self._r2_operations.get(name, Counter())
        written = sum(
            pipeline.objects
            for pipeline_name, pipeline in self._pipelines.items()
            if self.project.account.pipelines[pipeline_name].bucket == name
        )
        return {
            "objects": objects,
            "bytes": size,
            "class_a": operations["class_a"] + written,
            "class_b": operations["class_b"],
        }

    async def queue_ages(self) -> dict[str, float]:
        """How long the oldest message of each queue has been there, in seconds; 0 for none."""
        now_ms = self._clock.now_ms()
        names = self._queues.keys() | set(await self._backends.queues.names())
        oldest = {name: (await self.queue(name).depth()).oldest_ms for name in sorted(names)}
        return {
            name: 0.0 if since_ms is None else max(0, now_ms - since_ms) / 1000
            for name, since_ms in oldest.items()
        }

    async def drain(self, timeout: float) -> bool:
        """Roll the pipelines and deliver until nothing is on its way; False if time ran out."""
        deadline = self._clock.now() + timeout
        return await self._until(partial(self.is_quiet, deadline), timeout)

    async def leave(self, timeout: float) -> bool:
        """As ``drain``, at the end of a process: what the other nodes can do is left to them."""
        if urls.scheme_of(self.project.backends.queues) not in SHARED_QUEUES:
            return await self.drain(timeout)
        return await self._until(self._has_left, timeout)

    async def _until(self, quiet: Callable[[], Awaitable[bool]], timeout: float) -> bool:
        with anyio.move_on_after(timeout):
            while True:
                for tail in self._tails.values():
                    tail.hurry()
                if not self._busy():
                    for pipeline in self._pipelines.values():
                        await pipeline.roll()
                    try:
                        if await quiet():
                            return True
                    except RunError as error:  # a store that is away may come back in time
                        log.warning("not drained yet", error=str(error))
                await anyio.sleep(DRAIN_POLL_SECONDS)
        return False

    async def _has_left(self) -> bool:
        if await self._notifications.pending(self._backends.r2):
            return False
        for consumer in self._consumers:
            consumer.rest()
        return not any(consumer.in_flight for consumer in self._consumers) and self._is_idle()

    def _is_idle(self) -> bool:
        return not self._busy() and not any(each.pending for each in self._pipelines.values())

    def _busy(self) -> bool:
        return any(worker.in_flight for worker in self.workers.values()) or any(
            tail.pending for tail in self._tails.values()
        )

    async def is_quiet(self, deadline: float) -> bool:
        """Whether nothing is on its way; what is delayed past ``deadline`` is parked."""
        if await self._notifications.pending(self._backends.r2):
            return False
        for consumer in self._consumers:
            depth = await consumer.queue.depth()
            if consumer.in_flight or (depth.next_visible_at or deadline) < deadline:
                return False
        return self._is_idle()

    # --- Workers ---

    async def start_worker(self, config: WorkerConfig) -> None:
        """Start a Worker, or a new version of it in place of the old, which ends when it is idle.

        WorkerLoadError or ConfigError if it does not load; then the old version stays.
        """
        previous = self._retire.get(config.name)
        try:
            await self._tasks.start(self._serve_worker, config)
        except BaseExceptionGroup as group:
            error = first_error(group)
            if error is None:
                raise
            raise error from group
        if previous is not None:
            previous.set()

    async def _serve_worker(self, config: WorkerConfig, *, task_status: TaskStatus[None]) -> None:
        cpu_ms = config.settings.limits.cpu_ms
        limits = Limits() if cpu_ms is None else Limits(cpu_ms=cpu_ms)
        spec = WorkerSpec(config.name, str(config.main), config.bindings(), limits)
        retire = anyio.Event()
        async with self._open_isolates(spec, self._clock) as isolates:
            worker = Worker(
                config,
                isolates,
                self._bindings(config),
                self._outbound.of(config),
                [
                    *(self._tails[tail.target] for tail in config.settings.tail_consumers),
                    *self._traces,
                ],
                self._invocations,
                self._clock,
            )
            _check_handlers(self.project, config, worker)
            self.guards[config.name] = isolates.guards
            if config.name in self.workers:
                worker.outcomes.update(self.workers[config.name].outcomes)
                worker.cpu_ms = self.workers[config.name].cpu_ms
                worker.wall.update(self.workers[config.name].wall)
            if config.ignored_keys and config.name not in self.workers:
                keys = ", ".join(config.ignored_keys)
                log.info("wrangler keys without effect here", worker=config.name, keys=keys)
            if config.name not in self.workers:
                for warning in config.warnings:
                    log.warning(warning, worker=config.name)
            self.workers[config.name] = worker
            self._retire[config.name] = retire
            if self._closing:  # it was on its way when the others were told to go
                retire.set()
            task_status.started()
            async with anyio.create_task_group() as waiting:
                for event in (retire, isolates.lost):
                    waiting.start_soon(_cancel_when, event, waiting.cancel_scope)
        if not retire.is_set():
            self._tasks.start_soon(self._replace_worker, config)

    async def _replace_worker(self, config: WorkerConfig) -> None:
        await anyio.sleep(REPLACE_SECONDS)
        if self._closing:
            return
        try:
            await self.start_worker(config)
        except (WorkerLoadError, ConfigError) as error:
            log.error("worker not restarted", worker=config.name, error=str(error))
        else:
            log.info("worker restarted", worker=config.name)

    def _bindings(self, config: WorkerConfig) -> dict[str, Binding]:
        settings = config.settings
        bindings: dict[str, Binding] = {}
        for bucket in settings.r2_buckets:
            operations = self._r2_operations.setdefault(bucket.bucket_name, Counter())
            binding = R2Binding(self.bucket(bucket.bucket_name))
            bindings[bucket.binding] = Metered(binding, operations)
        for producer in settings.queues.producers:
            bindings[producer.binding] = QueueBinding(
                self.queue(producer.queue), producer.delivery_delay
            )
        for pipeline in settings.pipelines:
            bindings[pipeline.binding] = PipelineBinding(self._pipelines[pipeline.target])
        for service in settings.services:
            bindings[service.binding] = self._service(service.service)
        return bindings

    def _service(self, name: str) -> ServiceBinding:
        if name not in self.project.workers:
            return ServiceBinding(self.clickhouse)

        async def rpc(method: str, args: list[Any], depth: int) -> Any:
            return await self.workers[name].rpc(method, args, depth)

        return ServiceBinding(self.worker_fetch(name), rpc)

    async def _fetch_worker(self, name: str, request: HttpRequest, depth: int) -> HttpResponse:
        # Looked up at every call: a reload puts another version in its place.
        return await self.workers[name].fetch(request, depth)

    def worker_fetch(self, name: str) -> Fetch:
        """How a Worker of this project is asked."""
        return partial(self._fetch_worker, name)

    def _consumer(self, worker: WorkerConfig, config: ConsumerConfig) -> Consumer:
        settings = {
            key: value
            for key in ConsumerSettings.__struct_fields__
            if (value := getattr(config, key)) is not None
        }
        dead_letter = config.dead_letter_queue
        return Consumer(
            self.queue(config.queue),
            msgspec.convert(settings, ConsumerSettings),
            partial(self._deliver, worker.name, config.queue),
            self._clock,
            self.queue(dead_letter) if dead_letter else None,
        )

    def _pull_consumer(self, name: str, config: PullConfig) -> PullConsumer:
        dead_letter = config.dead_letter_queue
        return PullConsumer(
            self.queue(name),
            msgspec.convert(msgspec.structs.asdict(config), PullSettings),
            self.queue(dead_letter) if dead_letter else None,
        )

    async def _deliver(
        self, worker: str, queue: str, messages: Sequence[Message], metrics: Metrics
    ) -> BatchResult:
        return await delivery.deliver(self.workers[worker], queue, messages, metrics)

    # --- life ---

    async def start(self, outbound: Outbound) -> None:
        """Start every Worker; the first that fails to load is the error."""
        self._outbound = outbound
        errors: list[Exception] = []

        async def start_one(config: WorkerConfig) -> None:
            try:
                await self.start_worker(config)
            except (WorkerLoadError, ConfigError) as error:
                errors.append(error)

        async with anyio.create_task_group() as starting:
            for config in self.project.workers.values():
                starting.start_soon(start_one, config)
        if errors:
            raise errors[0]

    async def run(self) -> None:
        """What goes on by itself: windows, notifications, tails and consumers."""
        async with anyio.create_task_group() as tasks:
            for pipeline in self._pipelines.values():
                tasks.start_soon(pipeline.run)
            for name, tail in self._tails.items():
                tasks.start_soon(tail.run, partial(self._deliver_traces, name))
            for consumer in self._consumers:
                tasks.start_soon(consumer.run)
            for schedule in self._schedules:
                tasks.start_soon(schedule.run, partial(self._run_schedule, schedule))
            tasks.start_soon(self._notifications.relay, self._backends.r2, self._notify)
            tasks.start_soon(self._heed_other_nodes)

    async def _run_schedule(self, schedule: Schedule, time_ms: int) -> str | None:
        worker, cron = schedule.worker, schedule.expression
        try:
            mine = await self._backends.queues.claim(f"{worker} {cron} {time_ms}")
        except RunError as error:  # who runs it cannot be told: rather not at all than everywhere
            log.error("scheduled handler not run", worker=worker, cron=cron, error=str(error))
            return None
        return await self.scheduled(worker, cron, time_ms) if mine else None

    async def _heed_other_nodes(self) -> None:
        while True:
            name = await self._backends.queues.changed_elsewhere()
            if name in self._queues:
                self._queues[name].wake()

    async def _deliver_traces(self, worker: str, items: Any) -> Any:
        return await self.workers[worker].tail(items)

    async def _notify(self, queue: str, body: bytes) -> None:
        await self.queue(queue).send(body)

    async def finish(self) -> None:
        """Let invocations end and their traces reach the Tail Workers, within reason."""
        if self._abandoned:
            return
        with anyio.move_on_after(CLOSE_SECONDS) as scope:
            while self._busy():
                for tail in self._tails.values():
                    tail.hurry()
                await anyio.sleep(DRAIN_POLL_SECONDS)
        if scope.cancelled_caught:
            log.error("closed with work unfinished", traces_lost=self.traces_pending)

    def abandon(self) -> None:
        """End, when it ends, as a killed process does: with nothing finished."""
        self._abandoned = True

    def retire_workers(self) -> None:
        """Let every Worker's isolates go."""
        self._closing = True
        for event in self._retire.values():
            event.set()

    def close(self) -> None:
        """Close what the primitives keep open."""
        for pipeline in self._pipelines.values():
            pipeline.close()


@asynccontextmanager
async def open_simulator(
    project: Project,
    backends: Backends,
    clock: Clock,
    *,
    open_isolates: OpenIsolates | None = None,
    network: Fetch | None = None,
    traces: TraceSink | None = None,
) -> AsyncIterator[Simulator]:
    """A Simulator with everything going; at the end what can be finished is finished.

    ``open_isolates`` and ``network`` stand in for the project's isolation level and for the
    internet; ``traces`` is given every trace.  WorkerLoadError or ConfigError where a Worker does
    not load.
    """
    try:
        async with anyio.create_task_group() as tasks, asyncio.TaskGroup() as invocations:
            simulator = Simulator(
                project, backends, clock, tasks, invocations, open_isolates, traces
            )
            worker_fetch = simulator.worker_fetch
            async with open_outbound(simulator.router, worker_fetch, network) as outbound:
                try:
                    await simulator.start(outbound)
                    async with anyio.create_task_group() as background:
                        background.start_soon(simulator.run)
                        try:
                            yield simulator
                        finally:
                            with anyio.CancelScope(shield=True):
                                await simulator.finish()
                            background.cancel_scope.cancel()
                finally:
                    simulator.retire_workers()
                    simulator.close()
    except BaseExceptionGroup as group:
        error = first_error(group)
        if error is None:
            raise
        raise error from group


def isolates_of(project: Project) -> OpenIsolates:
    """Each Worker's isolates, at the level that the project gives it."""

    def open_isolates(spec: WorkerSpec, clock: Clock) -> AbstractAsyncContextManager[Isolates]:
        level = project.isolation_of(spec.name)
        opener: OpenIsolates = urls.opener("isolation", level, isolates_driver.DRIVERS)
        return opener(spec, clock)

    return open_isolates


async def _cancel_when(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _rules(project: Project) -> dict[str, list[Rule]]:
    return {
        bucket: [
            Rule(rule.queue, rule.event, rule.prefix, rule.suffix, tuple(rule.actions))
            for rule in config.notifications
        ]
        for bucket, config in project.account.r2.items()
    }


def _check_handlers(project: Project, config: WorkerConfig, worker: Worker) -> None:
    """A Worker that is wired to receive something must have the handler for it."""
    needed = {}
    if config.settings.queues.of_type("worker"):
        needed["queue"] = "queues.consumers"
    if any(
        config.name == tail.target
        for other in project.workers.values()
        for tail in other.settings.tail_consumers
    ):
        needed["tail"] = "name"
    if config.settings.triggers.crons:
        needed["scheduled"] = "triggers.crons"
    if config.name == project.entry:
        needed["fetch"] = "main"
    for handler, key in needed.items():
        if not worker.has(handler):
            problem = f"{config.main.name} has no `{handler}` handler in its class Default"
            raise ConfigError(config.file, key, problem)

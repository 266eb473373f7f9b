"""A project's primitives, connected to their drivers; everything but its Workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

import anyio
import msgspec
import structlog

from edgesim.analytics.dataset import Dataset
from edgesim.analytics.query import AnalyticsSql
from edgesim.backends import Backends
from edgesim.backoff import Backoff
from edgesim.clock import Clock
from edgesim.config import Project, WorkerConfig
from edgesim.config.dataflow import SqlPipelineSpec, needs_engine
from edgesim.config.queues import ConsumerConfig, PullConfig, QueueConfig
from edgesim.config.sql_statements import InsertInto
from edgesim.errors import ConfigError, EdgesimError
from edgesim.kv.namespace import KvNamespace
from edgesim.model import BatchResult, HttpRequest, HttpResponse, Message, R2Object
from edgesim.pipelines.iceberg.catalog import Catalog
from edgesim.pipelines.iceberg.engine import IcebergEngine
from edgesim.pipelines.pipeline import RETRY_SECONDS, RETRY_SECONDS_MAX, Pipeline
from edgesim.pipelines.sinks.catalog_table import CatalogTable
from edgesim.pipelines.sinks.json_files import JsonFiles
from edgesim.pipelines.sinks.sql_files import SqlFiles
from edgesim.pipelines.sinks.statement import SinkStatement
from edgesim.pipelines.sql.engine import SqlEngine
from edgesim.pipelines.sql.queries import query_of
from edgesim.pipelines.streams.pipeline import SqlPipeline
from edgesim.pipelines.streams.reader import Sink, WindowReader
from edgesim.pipelines.streams.stream import RecordStream
from edgesim.queues.consumer import Consumer
from edgesim.queues.paused import PausedQueues
from edgesim.queues.producer import Metrics, Queue
from edgesim.queues.pull import PullConsumer
from edgesim.r2.bucket import Bucket
from edgesim.r2.lifecycle import Lifecycle
from edgesim.r2.notifications import Notifications
from edgesim.runtime.lineage import Lineage
from edgesim.runtime.schedule import Schedule
from edgesim.runtime.tail import TailConsumer
from edgesim.taps import Taps
from edgesim.tracing import Tracer

ACCOUNT = "edgesim"

log = structlog.get_logger()

Deliver = Callable[[str, str, Sequence[Message], Metrics], Awaitable[BatchResult]]
"""Delivers a batch: Worker name, queue name, messages, the queue's metrics."""


class Primitives:
    """Buckets, queues, pipelines, tails, consumers and schedules; none is started here."""

    def __init__(
        self,
        project: Project,
        backends: Backends,
        clock: Clock,
        deliver: Deliver,
        taps: Taps | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.tracer = tracer
        self.project = project
        self.backends = backends
        self.clock = clock
        self.taps = taps or Taps(clock)
        backends.gateway.tap = self.taps.at("clickhouse")
        backends.gateway.tracer = tracer
        self._deliver = deliver
        rules = {name: bucket.notifications for name, bucket in project.account.r2.items()}
        self.notifications = Notifications(rules, clock, ACCOUNT, tracer)
        self._paused_queues = PausedQueues(project.state)
        self.queues: dict[str, Queue] = {}
        """The queues used so far, by name."""
        self.buckets: dict[str, Bucket] = {}
        self.namespaces: dict[str, KvNamespace] = {}
        """The KV namespaces used so far, by id."""
        self.r2_operations: dict[str, Counter[str]] = {}
        """Operations of Workers, by bucket and price class."""
        self.lifecycles = [
            Lifecycle(config.lifecycle, self.bucket(name), clock)
            for name, config in project.account.r2.items()
            if config.lifecycle
        ]
        self.pipelines = {
            name: Pipeline(
                name,
                config,
                self.bucket(config.bucket),
                project.state / "pipelines" / name,
                clock,
                self.taps.at(f"pipelines.{name}"),
                tracer,
            )
            for name, config in project.account.pipelines.items()
        }
        self.streams = {
            name: RecordStream(
                spec,
                project.state / "pipelines" / name,
                clock,
                self.taps.at(f"streams.{name}"),
                tracer,
            )
            for name, spec in project.dataflow.streams.items()
        }
        self.datasets = {
            name: Dataset(name, project.state / "analytics" / name, backends.gateway, clock, tracer)
            for name in project.datasets()
        }
        self.analytics_sql = AnalyticsSql(backends.gateway, clock)
        self.sql = SqlEngine(project.state / "sql", project.account.sql)
        self.iceberg = IcebergEngine(project.account.iceberg)
        self.catalogs = {
            sink.bucket: Catalog(self.bucket(sink.bucket), self.iceberg, clock)
            for sink in project.dataflow.sinks.values()
            if sink.is_catalog
        }
        """The Iceberg catalogs, by bucket."""
        self._tables: list[tuple[WindowReader, CatalogTable]] = []
        self.sql_pipelines = {
            name: self._sql_pipeline(spec) for name, spec in project.dataflow.pipelines.items()
        }
        self.tails = {
            tail.target: TailConsumer(
                tail.target, project.account.tail, self.taps.at(f"tails.{tail.target}")
            )
            for worker in project.workers.values()
            for tail in worker.settings.tail_consumers
        }
        self.consumers = [
            self._consumer(worker, config)
            for worker in project.workers.values()
            for config in worker.settings.queues.consumers
        ]
        self.pull_consumers = {
            name: self._pull_consumer(name, config)
            for name, config in project.pull_consumers().items()
        }
        self.schedules = [
            Schedule(worker.name, cron, clock)
            for worker in project.workers.values()
            for cron in worker.settings.triggers.crons
        ]

    @property
    def buffers(self) -> list[Pipeline | RecordStream]:
        """Everything that keeps records in a log until they are stored."""
        datasets = [dataset.stream for dataset in self.datasets.values()]
        return [*self.pipelines.values(), *self.streams.values(), *datasets]

    def queue(self, name: str) -> Queue:
        """The queue of that name; it is created on first use."""
        if name not in self.queues:
            config = self.project.account.queues.get(name) or QueueConfig()
            tap = self.taps.at(f"queues.{name}")
            self.queues[name] = Queue(
                name, self.backends.queues, self.clock, config, tap, self._paused_queues
            )
        return self.queues[name]

    def bucket(self, name: str) -> Bucket:
        """The bucket of that name; it is created on first use."""
        if name not in self.buckets:
            tap = self.taps.at(f"r2.{name}")
            self.buckets[name] = Bucket(name, self.backends.r2, self.clock, self.notifications, tap)
        return self.buckets[name]

    def namespace(self, identifier: str) -> KvNamespace:
        """The KV namespace of that id; ConfigError if the store was not opened at the start."""
        if identifier not in self.namespaces:
            if self.backends.kv is None:
                problem = "the project had none at its start; restart edgesim to open their store"
                raise ConfigError(self.project.file, "kv_namespaces", problem)
            self.namespaces[identifier] = KvNamespace(identifier, self.backends.kv, self.clock)
        return self.namespaces[identifier]

    def queue_names(self) -> set[str]:
        """Every queue that the project names or that is in use."""
        return self.queues.keys() | self.project.queue_names()

    def bucket_names(self) -> set[str]:
        """Every bucket that the project names or that is in use."""
        return self.buckets.keys() | self.project.bucket_names()

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
        """Send the notifications of an existing object again; returns their number."""
        messages = self.notifications.messages_again(bucket, found)
        for message in messages:
            await self.notify(message.queue, message.body)
        return len(messages)

    async def clickhouse(
        self, request: HttpRequest, lineage: Lineage | None = None, caller: str = ""
    ) -> HttpResponse:
        """Send a request to the ClickHouse gateway; ``caller`` is the Worker that makes it.

        A Worker gets the response unpacked, as ``fetch`` unpacks a server's.
        """
        if caller:
            headers = [each for each in request.headers if each[0].lower() != "accept-encoding"]
            request = msgspec.structs.replace(request, headers=headers)
        return await self.backends.gateway.fetch(request, caller)

    async def notify(self, queue: str, body: bytes) -> None:
        """Send an event notification."""
        await self.queue(queue).send(body)

    def _sql_pipeline(self, spec: SqlPipelineSpec) -> SqlPipeline:
        readers = []
        for number, statement in enumerate(spec.statements, 1):
            stream = self.streams[statement.stream]
            sink = self._sink(spec, statement)
            reader = stream.add_reader(f"{spec.name}/{number} {statement.sink}", sink)
            if isinstance(sink, CatalogTable):
                self._tables.append((reader, sink))
            readers.append((stream, reader))
        return SqlPipeline(spec.name, readers)

    def _sink(self, spec: SqlPipelineSpec, statement: InsertInto) -> Sink:
        flow = self.project.dataflow
        name, config = statement.sink, flow.sinks[statement.sink]
        bucket = self.bucket(config.bucket)
        if not needs_engine(statement, config):
            return JsonFiles(name, config, bucket)
        query = query_of(statement, flow.streams[statement.stream].fields, self.clock)
        cuts = self.project.state / "sql-cuts"
        running = SinkStatement(name, query, self.sql, cuts, self.clock)
        if config.is_catalog:
            catalog = self.catalogs[config.bucket]
            return CatalogTable(name, config, catalog, running, self.clock)
        return SqlFiles(name, config, bucket, running)

    def failing_sinks(self) -> dict[str, str]:
        """The problem of each sink whose last attempt to write failed, by the sink's name."""
        streams = [*self.streams.values(), *(each.stream for each in self.datasets.values())]
        return {
            reader.sink.name: reader.problem
            for stream in streams
            for reader in stream.readers
            if reader.problem
        }

    async def prepare_tables(self) -> None:
        """Create the Iceberg tables that are missing.

        Workers and clients can change a table's metadata: one that cannot be used makes its sink
        fail, and not the start.
        """
        for reader, table in self._tables:
            await self._prepare(reader, table)

    async def retry_tables(self) -> None:
        """Prepare the tables again that could not be, until their sinks work."""
        async with anyio.create_task_group() as tasks:
            for reader, table in self._tables:
                if reader.problem:
                    tasks.start_soon(self._insist_on, reader, table)

    async def _insist_on(self, reader: WindowReader, table: CatalogTable) -> None:
        backoff = Backoff(RETRY_SECONDS, RETRY_SECONDS_MAX)
        while reader.problem:
            await anyio.sleep(backoff.failed())
            if reader.problem and not reader.is_writing:  # else its stream tries to write
                await self._prepare(reader, table)

    async def _prepare(self, reader: WindowReader, table: CatalogTable) -> None:
        try:
            await table.prepare()
        except (EdgesimError, OSError) as error:
            reader.problem = str(error)
            log.error("sink is failing, will try again", sink=table.name, error=reader.problem)
        else:
            reader.problem = ""

    def _consumer(self, worker: WorkerConfig, config: ConsumerConfig) -> Consumer:
        dead_letter = config.dead_letter_queue
        return Consumer(
            self.queue(config.queue),
            config,
            partial(self._deliver, worker.name, config.queue),
            self.clock,
            self.queue(dead_letter) if dead_letter else None,
        )

    def _pull_consumer(self, name: str, config: PullConfig) -> PullConsumer:
        dead_letter = config.dead_letter_queue
        return PullConsumer(
            self.queue(name),
            config,
            self.queue(dead_letter) if dead_letter else None,
        )

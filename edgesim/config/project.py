"""The content of ``edgesim.toml``, and the whole project that is read with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from edgesim.config.dataflow import (
    Dataflow,
    RecordStreamConfig,
)
from edgesim.config.iceberg_limits import IcebergLimits
from edgesim.config.lifecycle import LifecycleRule
from edgesim.config.notifications import NotificationRule
from edgesim.config.observability import ExportTarget, ObservabilityConfig
from edgesim.config.outbound import OutboundConfig
from edgesim.config.pipelines import PipelineConfig
from edgesim.config.queues import PullConfig, QueueConfig
from edgesim.config.sinks import SinkConfig
from edgesim.config.sql_limits import SqlLimits
from edgesim.config.wrangler import (
    WorkerConfig,
)

FILE = "edgesim.toml"
STATE = ".edgesim"
Isolation = Literal["process", "warm", "inline"]
DEFAULT = "default"
"""Key of ``isolation`` for the Workers without a level of their own."""
PULL = "a pull consumer"
"""Entry of ``Project.consumers`` for a queue with a pull consumer."""
_SERVICE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


class BucketConfig(msgspec.Struct, forbid_unknown_fields=True):
    """``[r2.NAME]``: settings of one bucket."""

    notifications: list[NotificationRule] = []
    lifecycle: list[LifecycleRule] = []


class ClickHouseConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The ClickHouse gateway: its name in service bindings, and a schema file (SQL).

    The schema is applied before the first statement.  ``port``: HTTP port for ClickHouse clients on
    this machine while ``dev`` runs; 0 picks a free port.
    """

    service: str = "clickhouse"
    schema: str | None = None
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None


def is_service_name(name: str) -> bool:
    """Return True for the name of a service, which also names a folder of an export."""
    return _SERVICE_NAME.fullmatch(name) is not None


class TailConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Batch limits for Tail Workers (traces, seconds); Cloudflare does not document its own."""

    max_items: Annotated[int, msgspec.Meta(ge=1)] = 100
    max_seconds: Annotated[float, msgspec.Meta(ge=0)] = 1.0


class ServerConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The HTTP server of ``dev`` and ``serve``.

    ``trusted_proxies``: addresses or CIDR networks of reverse proxies; only these may set the
    headers that name the client (``cf-connecting-ip``, ``x-forwarded-for`` and so on).
    ``s3_port``: port for S3 clients on this machine; 0 picks a free port.
    """

    trusted_proxies: list[str] = []
    s3_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None


class BackendUrls(msgspec.Struct, forbid_unknown_fields=True):
    """URLs of the backends; a path that begins with ``.edgesim/`` is in the state directory."""

    r2: str = "file:.edgesim/r2"
    queues: str = "sqlite:.edgesim/queues.db"
    kv: str = "sqlite:.edgesim/kv.db"
    clickhouse: str = "chdb:.edgesim/clickhouse"


class AccountFile(msgspec.Struct, forbid_unknown_fields=True):
    """The content of edgesim.toml."""

    workers: list[str]
    entry: str | None = None
    environment: str | None = None
    isolation: Isolation | dict[str, Isolation] = {}
    pipelines: dict[str, PipelineConfig] = {}
    """Pipelines of the legacy form; see ``Project.dataflow`` for the others."""
    streams: dict[str, RecordStreamConfig] = {}
    sinks: dict[str, SinkConfig] = {}
    sql: SqlLimits = SqlLimits()
    iceberg: IcebergLimits = IcebergLimits()
    r2: dict[str, BucketConfig] = {}
    queues: dict[str, QueueConfig] = {}
    clickhouse: ClickHouseConfig = msgspec.field(default_factory=ClickHouseConfig)
    outbound: OutboundConfig = msgspec.field(default_factory=OutboundConfig)
    tail: TailConfig = msgspec.field(default_factory=TailConfig)
    server: ServerConfig = msgspec.field(default_factory=ServerConfig)
    observability: ObservabilityConfig = ObservabilityConfig()
    cf: dict[str, Any] = {}
    """Fields of ``request.cf``; they override edgesim's defaults."""
    backends: BackendUrls = msgspec.field(default_factory=BackendUrls)


class Overrides(msgspec.Struct, frozen=True):
    """Values of a command's flags; None if a flag was not given.

    ``configs``: wrangler files to run instead of the project in edgesim.toml.
    """

    configs: list[Path] = []
    state: Path | None = None
    environment: str | None = None
    isolation: dict[str, str] = {}
    isolation_default: str = "process"
    """Level if neither a flag nor the project sets one; depends on the command."""
    r2: str | None = None
    queues: str | None = None
    kv: str | None = None
    clickhouse: str | None = None
    inspect: bool = False
    """True if JavaScript Workers serve debuggers; they run at ``warm`` then."""


class Project(msgspec.Struct):
    """The complete, checked configuration of a Simulator."""

    root: Path
    state: Path
    entry: str
    isolation: dict[str, str]
    account: AccountFile
    backends: BackendUrls
    workers: dict[str, WorkerConfig]
    dataflow: Dataflow = msgspec.field(default_factory=Dataflow)
    export: ExportTarget | None = None
    """The receiver of traces and logs; None if they are not exported."""
    ingest_token: str | None = None
    """Token of streams with ``http.auth``: EDGESIM_INGEST_TOKEN."""
    schema: str = ""
    overridden: dict[str, str] = {}
    """Backends set by a flag or an environment variable: backend name to that flag or variable."""
    state_name: Path | None = None
    """The state directory with symbolic links unresolved: a link may later point elsewhere."""
    environment: str | None = None
    """The selected environment: ``env.NAME`` of the wrangler files."""
    defaults: list[str] = []
    """One line per assumption if there is no edgesim.toml; otherwise empty."""

    @property
    def file(self) -> Path:
        """The file that describes the project: edgesim.toml, else the entry's wrangler file."""
        return self.workers[self.entry].file if self.is_alone else self.root / FILE

    @property
    def is_alone(self) -> bool:
        """True if there is no edgesim.toml."""
        return bool(self.defaults)

    @property
    def uses_clickhouse(self) -> bool:
        """True if it has a schema or datasets, or a Worker with a binding to the gateway."""
        bound = {each.service for w in self.workers.values() for each in w.settings.services}
        service = self.account.clickhouse.service
        return bool(self.schema) or service in bound or bool(self.datasets())

    def uses(self, backend: str) -> bool:
        """True if the store of that backend is opened; that of KV only for namespaces."""
        return backend != "kv" or bool(self.kv_namespaces())

    def kv_namespaces(self) -> dict[str, list[str]]:
        """Names of the bindings to each KV namespace, by its id."""
        found: dict[str, list[str]] = {}
        for worker in self.workers.values():
            for each in worker.settings.kv_namespaces:
                names = found.setdefault(each.id, [])
                if each.binding not in names:
                    names.append(each.binding)
        return found

    def datasets(self) -> list[str]:
        """Names of the Analytics Engine datasets that Workers bind, sorted."""
        workers = self.workers.values()
        return sorted({each.name for w in workers for each in w.settings.analytics_engine_datasets})

    def isolation_of(self, worker: str) -> str:
        """Isolation level of the Worker, else of the project."""
        return self.isolation.get(worker) or self.isolation.get(DEFAULT, "process")

    def tails_behind(self, worker: str) -> set[str]:
        """The Tail Workers of a Worker, and of those it reaches by bindings and by its tails."""
        reached, tails = {worker}, set[str]()
        waiting = [worker]
        while waiting:
            settings = self.workers[waiting.pop()].settings
            own = {tail.target for tail in settings.tail_consumers}
            bound = {each.service for each in settings.services} & self.workers.keys()
            tails |= own
            waiting += (own | bound) - reached
            reached |= own | bound
        return tails

    def pull_consumers(self) -> dict[str, PullConfig]:
        """Pull consumers by queue."""
        return {name: queue.pull for name, queue in self.account.queues.items() if queue.pull}

    def consumers(self) -> dict[str, str]:
        """Consumer by queue: the name of a Worker, or PULL."""
        pushed = {
            consumer.queue: name
            for name, worker in self.workers.items()
            for consumer in worker.settings.queues.consumers
        }
        return dict.fromkeys(self.pull_consumers(), PULL) | pushed

    def queue_names(self) -> set[str]:
        """Every queue that edgesim.toml or a Worker names."""
        names = self.account.queues.keys() | self.dead_letter_queues()
        for bucket in self.account.r2.values():
            names |= {rule.queue for rule in bucket.notifications}
        for worker in self.workers.values():
            names |= {each.queue for each in worker.settings.queues.producers}
            names |= {each.queue for each in worker.settings.queues.consumers}
        return names

    def bucket_names(self) -> set[str]:
        """Every bucket that edgesim.toml or a Worker names."""
        names = set(self.account.r2)
        names |= {pipeline.bucket for pipeline in self.account.pipelines.values()}
        names |= {sink.bucket for sink in self.dataflow.sinks.values()}
        for worker in self.workers.values():
            names |= {each.bucket_name for each in worker.settings.r2_buckets}
        return names

    def dead_letter_queues(self) -> set[str]:
        """Names of the dead-letter queues of all consumers."""
        names = [each.dead_letter_queue for each in self.pull_consumers().values()]
        for worker in self.workers.values():
            names += [each.dead_letter_queue for each in worker.settings.queues.consumers]
        return {name for name in names if name}

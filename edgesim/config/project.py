"""``edgesim.toml``: settings that Cloudflare keeps outside wrangler files, and the whole project.

An unknown key in edgesim's own tables is an error that suggests the nearest known key.  References
between the parts (bindings that name pipelines, queues, services) are checked before start.
"""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from edgesim import drivers
from edgesim.config.alone import assumed, not_given
from edgesim.config.buckets import check_bucket
from edgesim.config.dataflow import (
    Dataflow,
    RecordStreamConfig,
    SqlPipelineConfig,
    read_dataflow,
    take_sql_pipelines,
)
from edgesim.config.environment import Environment
from edgesim.config.files import convert, is_file, read_table, read_text
from edgesim.config.notifications import NotificationRule, check_notifications
from edgesim.config.outbound import OutboundConfig, allowed
from edgesim.config.pipelines import PipelineConfig, check_pipelines, is_stream_id
from edgesim.config.queues import PullConfig, QueueConfig
from edgesim.config.sinks import SinkConfig
from edgesim.config.streams import no_such_stream, resolve_streams
from edgesim.config.wrangler import (
    FILES,
    WorkerConfig,
    find_wrangler_file,
    load_worker,
    wrangler_file,
)
from edgesim.errors import ConfigError, UsageError, hint
from edgesim.urls import path_of

FILE = "edgesim.toml"
STATE = ".edgesim"
Isolation = Literal["process", "warm", "inline"]
DEFAULT = "default"
"""Key of ``isolation`` for the Workers without a level of their own."""
PULL = "a pull consumer"
"""Entry of ``Project.consumers`` for a queue with a pull consumer."""


class BucketConfig(msgspec.Struct, forbid_unknown_fields=True):
    """``[r2.NAME]``: settings of one bucket."""

    notifications: list[NotificationRule] = []


class ClickHouseConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The ClickHouse gateway: its name in service bindings, and a schema file (SQL).

    The schema is applied before the first statement.  ``port``: HTTP port for ClickHouse clients on
    this machine while ``dev`` runs; 0 picks a free port.
    """

    service: str = "clickhouse"
    schema: str | None = None
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None


class TailConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Batch limits for Tail Workers (traces, seconds); Cloudflare does not document its own."""

    max_items: Annotated[int, msgspec.Meta(ge=1)] = 100
    max_seconds: Annotated[float, msgspec.Meta(ge=0)] = 1.0


class ServerConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The HTTP server of ``dev`` and ``serve``.

    ``trusted_proxies``: addresses or CIDR networks of reverse proxies; only these may set the
    headers that name the client (``cf-connecting-ip``, ``x-forwarded-for`` and so on).
    """

    trusted_proxies: list[str] = []


class BackendUrls(msgspec.Struct, forbid_unknown_fields=True):
    """URLs of the backends; a path that begins with ``.edgesim/`` is in the state directory."""

    r2: str = "file:.edgesim/r2"
    queues: str = "sqlite:.edgesim/queues.db"
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
    r2: dict[str, BucketConfig] = {}
    queues: dict[str, QueueConfig] = {}
    clickhouse: ClickHouseConfig = msgspec.field(default_factory=ClickHouseConfig)
    outbound: OutboundConfig = msgspec.field(default_factory=OutboundConfig)
    tail: TailConfig = msgspec.field(default_factory=TailConfig)
    server: ServerConfig = msgspec.field(default_factory=ServerConfig)
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
    clickhouse: str | None = None


_NONE = Overrides()
_NOTHING = Environment()


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
        """True if the project has a schema, or a Worker with a binding to the gateway."""
        bound = {each.service for w in self.workers.values() for each in w.settings.services}
        return bool(self.schema) or self.account.clickhouse.service in bound

    def isolation_of(self, worker: str) -> str:
        """Isolation level of the Worker, else of the project."""
        return self.isolation.get(worker) or self.isolation.get(DEFAULT, "process")

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


def find_root(argument: str | None) -> Path:
    """The folder of edgesim.toml: the argument, else ``.``, else ``./workers``.

    Without an edgesim.toml, the folder of a wrangler file.  UsageError if there is neither.
    """
    candidates = [Path(argument)] if argument else [Path(), Path("workers")]
    folders = [each.parent if each.name in {FILE, *FILES} else each for each in candidates]
    for folder in folders:
        if is_file(folder / FILE):
            return folder.resolve()
    if find_wrangler_file(folders[0]) is not None:
        return folders[0].resolve()
    looked = " or ".join(str(each / FILE) for each in folders)
    raise UsageError(
        f"no project here: {looked} does not exist, nor a wrangler file; name the project's folder"
    )


def load_project(
    root: Path, overrides: Overrides = _NONE, environment: Environment = _NOTHING
) -> Project:
    """Read and check the whole project; ConfigError names file, key and cure."""
    file = root / FILE
    alone = bool(overrides.configs) or not file.is_file()
    if alone:
        places = overrides.configs or [root]
        account, dataflow = AccountFile([str(place.resolve()) for place in places]), Dataflow()
        file = wrangler_file(places[0])
    else:
        account, dataflow = _read_account(file)
    state = (overrides.state or root / STATE).resolve()
    environment_name = overrides.environment or account.environment
    workers = _load_workers(file, root, account, environment_name, environment)
    defaults: list[str] = []
    if alone:
        account.pipelines, defaults = assumed(file, workers, state)
    resolve_streams(account.pipelines, dataflow, workers)
    backends = BackendUrls(
        **{
            name: _place(overrides, environment, account, name, root, state)
            for name in BackendUrls.__struct_fields__
        }
    )
    project = Project(
        root=root,
        state=state,
        entry=_entry(account, workers, environment_name),
        isolation={DEFAULT: overrides.isolation_default}
        | _levels(account.isolation)
        | overrides.isolation,
        account=account,
        backends=backends,
        workers=workers,
        dataflow=dataflow,
        ingest_token=environment.ingest_token,
        schema=_read_schema(file, root, account),
        overridden=_overridden(overrides, environment),
        state_name=(overrides.state or root / STATE).absolute(),
        environment=environment_name,
        defaults=defaults,
    )
    _check_drivers(project)
    _check_references(project)
    _check_tails(project)
    hidden = [str(each) for each in (state, *_local_paths(backends))]
    for worker in workers.values():
        worker.hidden = hidden
    return project


def _check_drivers(project: Project) -> None:
    for name, url in msgspec.structs.asdict(project.backends).items():
        if (problem := drivers.problem(name, url)) is None:
            continue
        if name in project.overridden:
            raise UsageError(f"{project.overridden[name]}: {problem}")
        raise ConfigError(project.file, f"backends.{name}", problem)


def _read_account(file: Path) -> tuple[AccountFile, Dataflow]:
    raw = read_table(file)
    with_sql = {"pipelines": take_sql_pipelines(raw)}
    account: AccountFile = convert(file, raw, AccountFile)
    check_pipelines(file, account.pipelines)
    pipelines = convert(file, with_sql, dict[str, dict[str, SqlPipelineConfig]])["pipelines"]
    dataflow = read_dataflow(file, account.streams, account.sinks, pipelines, account.pipelines)
    for name, bucket in account.r2.items():
        check_bucket(file, f"r2.{name}", name)
        check_notifications(file, name, bucket.notifications)
    for name, queue in account.queues.items():
        if queue.pull and queue.pull.dead_letter_queue == name:
            key = f"queues.{name}.pull.dead_letter_queue"
            raise ConfigError(file, key, "is the queue itself; name another queue")
    allowed(file, account.outbound.allow)
    _check_proxies(file, account.server.trusted_proxies)
    return account, dataflow


def _check_proxies(file: Path, proxies: list[str]) -> None:
    for index, proxy in enumerate(proxies):
        try:
            ip_network(proxy)
        except ValueError as error:
            key = f"server.trusted_proxies[{index}]"
            problem = f"{error}; write an address or a network such as 10.0.0.0/8"
            raise ConfigError(file, key, problem) from error


def _entry(account: AccountFile, workers: dict[str, WorkerConfig], environment: str | None) -> str:
    """Full name of the entry Worker; edgesim.toml may omit the environment's suffix."""
    if account.entry is None:
        return next(iter(workers))
    whole = f"{account.entry}-{environment}"
    return whole if whole in workers else account.entry


def _load_workers(
    file: Path,
    root: Path,
    account: AccountFile,
    environment: str | None,
    process: Environment,
) -> dict[str, WorkerConfig]:
    if not account.workers:
        raise ConfigError(file, "workers", "is empty; list the folders of the Workers")
    workers: dict[str, WorkerConfig] = {}
    for index, folder in enumerate(account.workers):
        if find_wrangler_file(root / folder) is None:
            problem = f"{folder!r} is not a Worker: it has none of {', '.join(FILES)}"
            raise ConfigError(file, f"workers[{index}]", problem)
        worker = load_worker(root / folder, environment, process.variables)
        worker.workerd, worker.esbuild = process.workerd, process.esbuild
        if worker.name in workers:
            raise ConfigError(worker.file, "name", f"{worker.name!r} is another Worker's already")
        workers[worker.name] = worker
    return workers


def _levels(isolation: str | dict[str, Any]) -> dict[str, str]:
    """Isolation level by Worker; DEFAULT applies to the others."""
    return {DEFAULT: isolation} if isinstance(isolation, str) else dict(isolation)


def _overridden(overrides: Overrides, environment: Environment) -> dict[str, str]:
    found = {}
    for name in BackendUrls.__struct_fields__:
        if getattr(overrides, name):
            found[name] = f"--{name}"
        elif getattr(environment, name):
            found[name] = f"EDGESIM_{name.upper()}"
    return found


def _place(
    overrides: Overrides,
    environment: Environment,
    account: AccountFile,
    name: str,
    root: Path,
    state: Path,
) -> str:
    """The backend's URL with an absolute path; flag before environment before file."""
    url: str = (
        getattr(overrides, name) or getattr(environment, name) or getattr(account.backends, name)
    )
    scheme, _, path = url.partition(":")
    if not path or path.startswith(("//", "/")):
        return url
    inside = path.removeprefix("./")
    if inside.startswith(f"{STATE}/"):
        return f"{scheme}:{state / inside.removeprefix(f'{STATE}/')}"
    return f"{scheme}:{root / path}"


def _local_paths(backends: BackendUrls) -> list[Path]:
    """The paths of stores on this machine, with symbolic links resolved."""
    urls = [getattr(backends, name) for name in BackendUrls.__struct_fields__]
    places = [path_of(url).partition("?")[0] for url in urls]
    return [Path(each).resolve() for each in places if each and not each.startswith("//")]


def _read_schema(file: Path, root: Path, account: AccountFile) -> str:
    if account.clickhouse.schema is None:
        return ""
    path = root / account.clickhouse.schema
    if not is_file(path):
        problem = f"there is no file {account.clickhouse.schema!r} in {root}"
        raise ConfigError(file, "clickhouse.schema", problem)
    return read_text(path)


def _check_references(project: Project) -> None:
    """Raise ConfigError for a reference to an unknown name, or a second consumer of a queue."""
    account = project.account
    if project.entry not in project.workers:
        _unknown(project.file, "entry", "Worker", project.entry, list(project.workers))
    for name in project.isolation:
        if name != DEFAULT and name not in project.workers:
            _unknown(project.file, "isolation", "Worker", name, [DEFAULT, *project.workers])
    sendable = [*project.dataflow.streams, *account.pipelines]
    services = [*project.workers, account.clickhouse.service]
    # A queue has one consumer, push or pull, in whichever file it is configured.
    consumers = {
        name: f"[queues.{name}.pull] of {FILE}"
        for name, queue in account.queues.items()
        if queue.pull
    }
    for worker in project.workers.values():
        for index, pipeline in enumerate(worker.settings.pipelines):
            if pipeline.target not in sendable:
                key = f"pipelines[{index}].stream"
                if is_stream_id(pipeline.target):
                    raise ConfigError(worker.file, key, no_such_stream(pipeline.target))
                _unknown(worker.file, key, "stream or pipeline", pipeline.target, sendable)
        for index, service in enumerate(worker.settings.services):
            if service.service not in services:
                key = f"services[{index}].service"
                if project.is_alone:
                    raise ConfigError(worker.file, key, not_given(service.service))
                _unknown(worker.file, key, "Worker", service.service, services)
            if service.service not in project.workers and service.target_class != "Default":
                key = f"services[{index}].entrypoint"
                raise ConfigError(
                    worker.file, key, "is not for the ClickHouse gateway; leave it out"
                )
        for index, tail in enumerate(worker.settings.tail_consumers):
            if tail.target not in project.workers:
                key = f"tail_consumers[{index}].service"
                _unknown(worker.file, key, "Worker", tail.target, list(project.workers))
        for index, consumer in enumerate(worker.settings.queues.consumers):
            if consumer.queue in consumers:
                key, other = f"queues.consumers[{index}].queue", consumers[consumer.queue]
                raise ConfigError(
                    worker.file, key, f"{consumer.queue!r} has a consumer already: {other}"
                )
            consumers[consumer.queue] = f"Worker {worker.name!r}"


def _check_tails(project: Project) -> None:
    """Raise ConfigError for a cycle of Tail Workers: each trace would cause another one."""
    told = {
        name: {tail.target for tail in worker.settings.tail_consumers} - {name}
        for name, worker in project.workers.items()
    }
    for name, worker in project.workers.items():
        seen: set[str] = set()
        after = told[name]
        while after:
            if name in after:
                problem = f"leads back to {name!r} itself: each trace would make another, for ever"
                raise ConfigError(worker.file, "tail_consumers", problem)
            seen |= after
            after = set().union(*(told[each] for each in after)) - seen


def _unknown(file: Path, key: str, kind: str, name: str, known: list[str]) -> None:
    raise ConfigError(file, key, f"there is no {kind} named {name!r}; {hint(name, known)}")

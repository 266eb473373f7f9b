"""``edgesim.toml``: what Cloudflare keeps outside wrangler files, and the project as a whole.

Our own tables refuse unknown keys, with the nearest right spelling.  What the parts say of each
other (bindings that name pipelines, queues, services) is checked here, before anything starts.
"""

from __future__ import annotations

import difflib
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from edgesim.config.alone import assumed, not_given
from edgesim.config.buckets import check_bucket
from edgesim.config.consumers import DELAY_SECONDS_MAX, PullConfig
from edgesim.config.environment import Environment
from edgesim.config.files import convert, read_table, read_text
from edgesim.config.outbound import OutboundConfig, allowed
from edgesim.config.pipelines import PipelineConfig, check_pipelines, is_stream_id
from edgesim.config.streams import no_such_stream, resolve_streams
from edgesim.config.wrangler import FILES, WorkerConfig, load_worker, wrangler_file
from edgesim.errors import ConfigError, UsageError

FILE = "edgesim.toml"
STATE = ".edgesim"
Isolation = Literal["process", "warm", "inline"]
DEFAULT = "default"
"""In ``isolation``: the level of the Workers that are not named."""
PULL = "a pull consumer"
"""In place of a Worker that consumes a queue."""
Event = Literal["object-create", "object-delete"]
Action = Literal[
    "PutObject", "CopyObject", "CompleteMultipartUpload", "DeleteObject", "LifecycleDeletion"
]


class NotificationRule(msgspec.Struct, forbid_unknown_fields=True):
    """An R2 event notification; ``actions`` picks single ones in place of all of the event's."""

    queue: str
    event: Event = "object-create"
    actions: list[Action] = []
    prefix: str = ""
    suffix: str = ""
    description: str = ""


class BucketConfig(msgspec.Struct, forbid_unknown_fields=True):
    """What concerns one bucket."""

    notifications: list[NotificationRule] = []


class QueueConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Queue settings that Cloudflare keeps with the queue itself; times in seconds."""

    retention_seconds: float = 345_600
    delivery_delay: Annotated[float, msgspec.Meta(ge=0, le=DELAY_SECONDS_MAX)] = 0
    pull: PullConfig | None = None


class ClickHouseConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The gateway: its name in service bindings, and SQL to apply before its first statement.

    ``port`` lets ordinary ClickHouse clients of this machine in while ``dev`` runs; 0: a free one.
    """

    service: str = "clickhouse"
    schema: str | None = None
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None


class TailConfig(msgspec.Struct, forbid_unknown_fields=True):
    """How traces are batched for Tail Workers; Cloudflare does not document its own numbers."""

    max_items: Annotated[int, msgspec.Meta(ge=1)] = 100
    max_seconds: Annotated[float, msgspec.Meta(ge=0)] = 1.0


class ServerConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The HTTP server of ``dev`` and ``serve``.

    ``trusted_proxies``: addresses or networks in CIDR form of the proxies in front of it, which may
    set the headers that name the client (``cf-connecting-ip``, ``x-forwarded-for`` and so on).
    """

    trusted_proxies: list[str] = []


class Backends(msgspec.Struct, forbid_unknown_fields=True):
    """A path that begins with ``.edgesim/`` is in the state directory, wherever that is."""

    r2: str = "file:.edgesim/r2"
    queues: str = "sqlite:.edgesim/queues.db"
    clickhouse: str = "chdb:.edgesim/clickhouse"


class AccountFile(msgspec.Struct, forbid_unknown_fields=True):
    """edgesim.toml."""

    workers: list[str]
    entry: str | None = None
    environment: str | None = None
    isolation: Isolation | dict[str, Isolation] = {}
    pipelines: dict[str, PipelineConfig] = {}
    r2: dict[str, BucketConfig] = {}
    queues: dict[str, QueueConfig] = {}
    clickhouse: ClickHouseConfig = msgspec.field(default_factory=ClickHouseConfig)
    outbound: OutboundConfig = msgspec.field(default_factory=OutboundConfig)
    tail: TailConfig = msgspec.field(default_factory=TailConfig)
    server: ServerConfig = msgspec.field(default_factory=ServerConfig)
    cf: dict[str, Any] = {}
    """Fields of ``request.cf``, over the ones that edgesim makes up."""
    backends: Backends = msgspec.field(default_factory=Backends)


class Overrides(msgspec.Struct, frozen=True):
    """What a command's flags say; None where a flag was not given.

    ``configs``: wrangler files to run in place of the project that edgesim.toml describes.
    """

    configs: list[Path] = []
    state: Path | None = None
    environment: str | None = None
    isolation: dict[str, str] = {}
    isolation_default: str = "process"
    """Where neither a flag nor the project says; each command has its own."""
    r2: str | None = None
    queues: str | None = None
    clickhouse: str | None = None


_NONE = Overrides()
_NOTHING = Environment()


class Project(msgspec.Struct):
    """Everything that a Simulator is made from."""

    root: Path
    state: Path
    entry: str
    isolation: dict[str, str]
    account: AccountFile
    backends: Backends
    workers: dict[str, WorkerConfig]
    schema: str = ""
    overridden: dict[str, str] = {}
    """Backends that a flag or a variable names, by backend: that flag or variable."""
    state_name: Path | None = None
    """The state directory as it was named: through a link, which may later lead elsewhere."""
    environment: str | None = None
    """The environment that is run: ``env.NAME`` of the wrangler files."""
    defaults: list[str] = []
    """Lines on what was assumed, where there is no edgesim.toml."""

    @property
    def file(self) -> Path:
        """The file that describes the project: edgesim.toml, or without one a wrangler file."""
        return self.workers[self.entry].file if self.is_alone else self.root / FILE

    @property
    def is_alone(self) -> bool:
        """Whether there is no edgesim.toml."""
        return bool(self.defaults)

    def isolation_of(self, worker: str) -> str:
        """The Worker's own level, else the project's."""
        return self.isolation.get(worker) or self.isolation.get(DEFAULT, "process")

    def pull_consumers(self) -> dict[str, PullConfig]:
        """Pull consumers by queue."""
        return {name: queue.pull for name, queue in self.account.queues.items() if queue.pull}

    def consumers(self) -> dict[str, str]:
        """Who consumes each queue: the name of a Worker, or PULL."""
        pushed = {
            consumer.queue: name
            for name, worker in self.workers.items()
            for consumer in worker.settings.queues.consumers
        }
        return dict.fromkeys(self.pull_consumers(), PULL) | pushed

    def dead_letter_queues(self) -> set[str]:
        """Queues that take the dead letters of others."""
        names = [each.dead_letter_queue for each in self.pull_consumers().values()]
        for worker in self.workers.values():
            names += [each.dead_letter_queue for each in worker.settings.queues.consumers]
        return {name for name in names if name}


def find_root(argument: str | None) -> Path:
    """The folder of edgesim.toml: the argument, else ``.``, else ``./workers``.

    Without an edgesim.toml: the folder of a wrangler file.
    """
    candidates = [Path(argument)] if argument else [Path(), Path("workers")]
    folders = [each.parent if each.name in {FILE, *FILES} else each for each in candidates]
    for folder in folders:
        if (folder / FILE).is_file():
            return folder.resolve()
    if any((folders[0] / name).is_file() for name in FILES):
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
        account = AccountFile(workers=[str(place.resolve()) for place in places])
        file = wrangler_file(places[0])
    else:
        account = _read_account(file)
    state = (overrides.state or root / STATE).resolve()
    environment_name = overrides.environment or account.environment
    workers = _load_workers(file, root, account, environment_name, environment)
    defaults: list[str] = []
    if alone:
        account.pipelines, defaults = assumed(file, workers, state)
    resolve_streams(account.pipelines, workers)
    backends = Backends(
        **{
            name: _place(overrides, environment, account, name, root, state)
            for name in Backends.__struct_fields__
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
        schema=_read_schema(file, root, account),
        overridden=_overridden(overrides, environment),
        state_name=(overrides.state or root / STATE).absolute(),
        environment=environment_name,
        defaults=defaults,
    )
    _check_references(project)
    _check_tails(project)
    return project


def _read_account(file: Path) -> AccountFile:
    raw = read_table(file)
    _refuse_unknown_keys(file, raw, AccountFile, "")
    account: AccountFile = convert(file, raw, AccountFile)
    check_pipelines(file, account.pipelines)
    for name in account.r2:
        check_bucket(file, f"r2.{name}", name)
    for name, queue in account.queues.items():
        if queue.pull and queue.pull.dead_letter_queue == name:
            key = f"queues.{name}.pull.dead_letter_queue"
            raise ConfigError(file, key, "is the queue itself; name another queue")
    allowed(file, account.outbound.allow)
    _check_proxies(file, account.server.trusted_proxies)
    return account


def _check_proxies(file: Path, proxies: list[str]) -> None:
    for index, proxy in enumerate(proxies):
        try:
            ip_network(proxy)
        except ValueError as error:
            key = f"server.trusted_proxies[{index}]"
            problem = f"{error}; write an address or a network such as 10.0.0.0/8"
            raise ConfigError(file, key, problem) from error


def _entry(account: AccountFile, workers: dict[str, WorkerConfig], environment: str | None) -> str:
    """The entry Worker by its whole name; edgesim.toml may name it without the environment."""
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
    for folder in account.workers:
        worker = load_worker(root / folder, environment, process.variables)
        if worker.name in workers:
            raise ConfigError(worker.file, "name", f"{worker.name!r} is another Worker's already")
        workers[worker.name] = worker
    return workers


def _levels(isolation: str | dict[str, Any]) -> dict[str, str]:
    """Levels by Worker; DEFAULT is for those that are not named."""
    return {DEFAULT: isolation} if isinstance(isolation, str) else dict(isolation)


def _overridden(overrides: Overrides, environment: Environment) -> dict[str, str]:
    found = {}
    for name in Backends.__struct_fields__:
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
    """The backend's URL, flag before environment before file, its path made absolute."""
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


def _read_schema(file: Path, root: Path, account: AccountFile) -> str:
    if account.clickhouse.schema is None:
        return ""
    path = root / account.clickhouse.schema
    if not path.is_file():
        problem = f"there is no file {account.clickhouse.schema!r} in {root}"
        raise ConfigError(file, "clickhouse.schema", problem)
    return read_text(path)


def _check_references(project: Project) -> None:
    """Every name that one part uses of another must exist."""
    account = project.account
    if project.entry not in project.workers:
        _unknown(project.file, "entry", "Worker", project.entry, list(project.workers))
    for name in project.isolation:
        if name != DEFAULT and name not in project.workers:
            _unknown(project.file, "isolation", "Worker", name, [DEFAULT, *project.workers])
    services = [*project.workers, account.clickhouse.service]
    # One consumer a queue, push or pull, wherever it is configured.
    consumers = {
        name: f"[queues.{name}.pull] of {FILE}"
        for name, queue in account.queues.items()
        if queue.pull
    }
    for worker in project.workers.values():
        for index, pipeline in enumerate(worker.settings.pipelines):
            if pipeline.target not in account.pipelines:
                key = f"pipelines[{index}].stream"
                if is_stream_id(pipeline.target):
                    raise ConfigError(worker.file, key, no_such_stream(pipeline.target))
                _unknown(worker.file, key, "pipeline", pipeline.target, list(account.pipelines))
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
    """Tail Workers in a ring would be told of each other's invocations for ever."""
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
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
    raise ConfigError(file, key, f"there is no {kind} named {name!r}; {hint}")


def _refuse_unknown_keys(file: Path, table: Any, kind: Any, path: str) -> None:
    """Walk our own tables beside their structs, for an error with the nearest right spelling."""
    if get_origin(kind) is dict and isinstance(table, dict):
        for key, value in table.items():
            _refuse_unknown_keys(file, value, get_args(kind)[1], f"{path}{key}.")
    elif get_origin(kind) is list and isinstance(table, list):
        for index, value in enumerate(table):
            inner = f"{path.rstrip('.')}[{index}]."
            _refuse_unknown_keys(file, value, get_args(kind)[0], inner)
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(table, dict):
        fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
        for key, value in table.items():
            if key not in fields:
                near = difflib.get_close_matches(key, fields, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(fields)}"
                raise ConfigError(file, f"{path}{key}", f"unknown key; {hint}")
            _refuse_unknown_keys(file, value, fields[key], f"{path}{key}.")

"""A Worker's configuration file: ``wrangler.jsonc``, ``wrangler.json`` or ``wrangler.toml``.

Read as wrangler reads it (source: wrangler's config schema).  Cloudflare's keys that edgesim does
not use are accepted and listed; a key that edgesim uses must have the right type.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edgesim.config.analytics import DatasetConfig, check_datasets
from edgesim.config.buckets import check_bucket
from edgesim.config.cron import parse_cron
from edgesim.config.dotenv import local_secrets
from edgesim.config.files import InvalidKeyError, convert, is_file, read_table, whole_numbers
from edgesim.config.queues import DELAY_SECONDS_MAX, ConsumerConfig
from edgesim.config.routes import Route, RouteConfig, parse_route
from edgesim.config.wrangler_env import in_environment
from edgesim.config.wrangler_keys import KEYS, absent_bindings, unknown_keys
from edgesim.config.wrangler_values import normalised
from edgesim.errors import ConfigError
from edgesim.model import BindingSpec, JavaScript, Limits, ModuleRule, WorkerSpec

WORKERS_DEV = "workers.dev"
FILES = ("wrangler.json", "wrangler.jsonc", "wrangler.toml")
"""In the order in which wrangler looks for them."""

JAVASCRIPT = frozenset({".js", ".mjs", ".ts", ".mts", ".jsx", ".tsx"})
"""Extensions of ``main`` of a Worker in JavaScript or TypeScript."""
BUILD_KEYS = frozenset(
    {"rules", "define", "alias", "tsconfig", "jsx_factory", "jsx_fragment", "minify", "keep_names"}
)
"""Keys that say how a JavaScript Worker is bundled."""

NO_GLOBAL_HANDLERS = date(2025, 8, 14)
"""From this compatibility date on, module-level handlers of Python Workers are not called."""

_VENDORED = frozenset({"node_modules", "python_modules"})
_DATE = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})")
_STREAMING = "streaming_tail_consumers"
_NO_STREAMING = (
    f"{_STREAMING} is not in edgesim: no tailStream handler is called; name a Worker with a tail "
    "handler in tail_consumers"
)
_NAME = re.compile(r"[a-z0-9_][a-z0-9_-]*")


class S3Credentials(msgspec.Struct, rename="camel"):
    """A key pair that opens the bucket to clients of the S3 API."""

    access_key_id: Annotated[str, msgspec.Meta(min_length=1)]
    secret_access_key: Annotated[str, msgspec.Meta(min_length=1)]


class LocalBucketConfig(msgspec.Struct):
    """Settings of a bucket that only ``wrangler dev`` and edgesim read."""

    experimental_s3_credentials: S3Credentials | None = None


class R2BindingConfig(msgspec.Struct):
    """A bucket on ``env``; a missing name is derived from the Worker's and the binding's."""

    binding: str
    bucket_name: Annotated[str, msgspec.Meta(min_length=1)] = ""
    local_dev: LocalBucketConfig | None = None


class KvNamespaceConfig(msgspec.Struct):
    """A KV namespace on ``env``, named by ``id``; a missing one is derived from both names.

    ``preview_id`` is for ``wrangler dev`` on Cloudflare's servers and has no effect here.
    """

    binding: str
    id: Annotated[str, msgspec.Meta(min_length=1)] = ""
    preview_id: str | None = None


class Producer(msgspec.Struct):
    """A queue on ``env``; ``delivery_delay`` in seconds, None means the queue's own."""

    binding: str
    queue: Annotated[str, msgspec.Meta(min_length=1)] = ""
    delivery_delay: Annotated[float, msgspec.Meta(ge=0, le=DELAY_SECONDS_MAX)] | None = None


class Queues(msgspec.Struct):
    """Queues that the Worker sends to and consumes."""

    producers: list[Producer] = []
    consumers: list[ConsumerConfig] = []


class PipelineBindingConfig(msgspec.Struct):
    """A stream on ``env``; ``pipeline`` is the old name of ``stream``, which Cloudflare accepts."""

    binding: str
    stream: str | None = None
    pipeline: str | None = None

    @property
    def target(self) -> str:
        return self.stream or self.pipeline or ""

    @property
    def is_old_style(self) -> bool:
        """True if the file uses the old key ``pipeline``."""
        return bool(self.pipeline)


class ServiceBindingConfig(msgspec.Struct):
    """Another Worker, or the ClickHouse gateway, on ``env``."""

    binding: str
    service: str
    entrypoint: str | None = None

    @property
    def target_class(self) -> str:
        """Name of the target class; JavaScript's name "default" stands for ``Default``."""
        return "Default" if self.entrypoint in {None, "default"} else str(self.entrypoint)


class TailConsumerConfig(msgspec.Struct):
    """A Tail Worker that receives the traces of this Worker's invocations."""

    service: str
    environment: str | None = None

    @property
    def target(self) -> str:
        """Full name of the Tail Worker, with its environment's suffix."""
        return f"{self.service}-{self.environment}" if self.environment else self.service


class Triggers(msgspec.Struct):
    """Cron expressions (UTC) for the scheduled handler."""

    crons: list[str] = []


class LimitsConfig(msgspec.Struct):
    """Limits of one invocation; None means the platform's default."""

    cpu_ms: Annotated[int, msgspec.Meta(ge=1, le=300_000)] | None = None
    subrequests: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None


class Secrets(msgspec.Struct):
    """``required``: names of secrets; local secrets are then limited to these and ``vars``."""

    required: list[str] = []


class Exported(msgspec.Struct, frozen=True):
    """Telemetry of a Worker that is exported: shares (0 to 1) of traces, and of invocations' logs.

    ``invocation_logs``: one record for each invocation beside those of its console.
    """

    traces: float = 1.0
    logs: float = 1.0
    invocation_logs: bool = True
    redact_query_string: bool = False


class Sampling(msgspec.Struct):
    """A switch of telemetry, and the share of the invocations (0 to 1) that have it."""

    enabled: bool | None = None
    head_sampling_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


class LogSampling(Sampling):
    """Settings of Workers Logs."""

    invocation_logs: bool | None = None


class Observability(Sampling):
    """Settings of Workers Logs and traces."""

    logs: LogSampling | None = None
    traces: Sampling | None = None
    issues: Sampling | None = None
    redact_query_string: bool | None = None

    def __post_init__(self) -> None:
        """Refuse a table without any ``enabled``, as wrangler does."""
        parts = (self, self.logs, self.traces, self.issues)
        if all(part is None or part.enabled is None for part in parts):
            raise InvalidKeyError("enabled", "is missing; write `enabled` here, or in `logs`")

    def exported(self) -> Exported:
        """The telemetry that is exported, if any is: all that no key turns off."""
        logs = self.logs or LogSampling()
        return Exported(
            self._share(self.traces or Sampling()),
            self._share(logs),
            logs.invocation_logs is not False,
            bool(self.redact_query_string),
        )

    def _share(self, part: Sampling) -> float:
        enabled = self.enabled if part.enabled is None else part.enabled
        rate = part.head_sampling_rate
        if rate is None:
            rate = self.head_sampling_rate
        return 0.0 if enabled is False else 1.0 if rate is None else rate


class WranglerFile(msgspec.Struct):
    """The keys that edgesim uses or checks."""

    name: str
    main: str
    compatibility_date: str = ""
    compatibility_flags: list[str] = []
    vars: dict[str, Any] = {}
    r2_buckets: list[R2BindingConfig] = []
    kv_namespaces: list[KvNamespaceConfig] = []
    analytics_engine_datasets: list[DatasetConfig] = []
    queues: Queues = msgspec.field(default_factory=Queues)
    pipelines: list[PipelineBindingConfig] = []
    services: list[ServiceBindingConfig] = []
    tail_consumers: list[TailConsumerConfig] = []
    triggers: Triggers = msgspec.field(default_factory=Triggers)
    route: str | RouteConfig | None = None
    routes: list[str | RouteConfig] = []
    workers_dev: bool | None = None
    limits: LimitsConfig = msgspec.field(default_factory=LimitsConfig)
    secrets: Secrets | None = None
    observability: Observability | None = None
    rules: list[ModuleRule] = []
    define: dict[str, str] = {}
    alias: dict[str, str] = {}
    tsconfig: str | None = None
    jsx_factory: str | None = None
    jsx_fragment: str | None = None
    minify: bool = False
    keep_names: bool = True

    @property
    def exported(self) -> Exported:
        """The Worker's telemetry that is exported while edgesim exports any."""
        return Exported() if self.observability is None else self.observability.exported()

    @property
    def legacy_handlers(self) -> bool:
        """True if the platform calls module-level handlers of a Python Worker."""
        flags = self.compatibility_flags
        if "disable_python_no_global_handlers" in flags:
            return True
        given = _DATE.fullmatch(self.compatibility_date)
        is_old = given is not None and date(*map(int, given.groups())) < NO_GLOBAL_HANDLERS
        return is_old and "python_no_global_handlers" not in flags


class WorkerConfig(msgspec.Struct):
    """One Worker: paths of its file and module, and its settings."""

    file: Path
    main: Path
    settings: WranglerFile
    secrets: dict[str, str] = {}
    ignored_keys: list[str] = []
    warnings: list[str] = []
    routes: list[Route] = []
    absent_bindings: dict[str, str] = {}
    """Bindings that edgesim does not support: name on env to the key of its table."""
    hidden: list[str] = []
    """Paths that no Worker may read: the state directory and the stores."""
    workerd: str | None = None
    esbuild: str | None = None
    """Programs for JavaScript Workers, where the environment names them."""
    inspected: bool = False
    """True if a JavaScript Worker serves a debugger."""

    @property
    def is_javascript(self) -> bool:
        """True for JavaScript and TypeScript, by the extension of ``main``."""
        return self.main.suffix in JAVASCRIPT

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def zones(self) -> set[str]:
        """Zones of its routes; workers.dev too if ``workers_dev``, the default without routes."""
        zones = {route.zone for route in self.routes}
        on_workers_dev = self.settings.workers_dev
        if on_workers_dev or (on_workers_dev is None and not zones):
            zones.add(WORKERS_DEV)
        return zones

    def spec(self) -> WorkerSpec:
        """The description from which isolates of the Worker are opened."""
        settings = self.settings
        cpu_ms = settings.limits.cpu_ms
        limits = Limits() if cpu_ms is None else Limits(cpu_ms=cpu_ms)
        javascript = None
        if self.is_javascript:
            given = {name: getattr(settings, name) for name in BUILD_KEYS}
            javascript = JavaScript(
                str(self.file),
                str(self.file.parent),
                settings.compatibility_date,
                settings.compatibility_flags,
                workerd=self.workerd,
                esbuild=self.esbuild,
                inspected=self.inspected,
                **given,
            )
        return WorkerSpec(
            self.name,
            str(self.main),
            self.bindings(),
            limits,
            javascript=javascript,
            hidden=self.hidden,
            legacy_handlers=settings.legacy_handlers,
        )

    def version_id(self) -> str:
        """UUID derived from the settings and the modules below the folder of ``main``.

        Vendored packages are left out: they are many, and change by an installation only.
        """
        digest = hashlib.sha256(msgspec.json.encode(self.settings))
        suffixes = JAVASCRIPT if self.is_javascript else {".py"}
        for folder, below, files in os.walk(self.main.parent):
            below[:] = sorted(each for each in below if each not in _VENDORED and each[0] != ".")
            for name in sorted(files):
                module = Path(folder, name)
                if module.suffix in suffixes and module.is_file():  # not a link to nothing
                    relative = module.relative_to(self.main.parent)
                    digest.update(os.fsencode(relative) + b"\0" + module.read_bytes())
        return str(uuid.UUID(bytes=digest.digest()[:16], version=4))

    def bindings(self) -> list[BindingSpec]:
        """All bindings on ``env``; ConfigError if a name is bound twice."""
        settings = self.settings
        texts = settings.vars | self.secrets
        required = settings.secrets.required if settings.secrets else []
        specs = [
            BindingSpec(name, "text" if isinstance(value, str) else "json", value)
            for name, value in texts.items()
        ]
        specs += [BindingSpec(each.binding, "r2") for each in settings.r2_buckets]
        specs += [BindingSpec(each.binding, "kv") for each in settings.kv_namespaces]
        specs += [BindingSpec(each.binding, "queue") for each in settings.queues.producers]
        datasets = settings.analytics_engine_datasets
        specs += [BindingSpec(each.binding, "analytics") for each in datasets]
        specs += [BindingSpec(each.binding, "pipeline") for each in settings.pipelines]
        specs += [BindingSpec(each.binding, "service") for each in settings.services]
        names = [spec.name for spec in specs]
        names += [name for name in required if name in settings.vars or name not in texts]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(self.file, name, "is bound twice; every name on env is one thing")
        return specs


def load_worker(
    place: Path, environment: str | None = None, variables: Mapping[str, str] | None = None
) -> WorkerConfig:
    """Read a Worker's file for the environment; ConfigError for anything invalid.

    ``place`` is the Worker's folder or its wrangler file.  ``variables`` is the process
    environment, a source for ``secrets.required``.
    """
    file = wrangler_file(place)
    folder = file.parent
    whole = whole_numbers(read_table(file))
    raw, warnings = in_environment(file, whole, environment)
    raw, more = normalised(file, raw)
    warnings += [*more, *map(str, unknown_keys(whole))]
    if not raw.get("name"):
        raw["name"] = _name_of(folder) + (f"-{environment}" if environment else "")
        warnings.append(f"the file has no name: {raw['name']!r} is used, from its folder")
    if "main" not in raw:
        problem = "is missing; name the Worker's main module"
        if "assets" in raw:
            problem = (
                "is missing: a Worker of static assets only has no code to run, and edgesim serves "
                "no assets; name a main module, or leave this Worker out"
            )
        raise ConfigError(file, "main", problem)
    settings: WranglerFile = convert(file, raw, WranglerFile)
    if not _NAME.fullmatch(settings.name):
        problem = f"{settings.name!r} is not lower-case letters, digits, dashes and underscores"
        raise ConfigError(file, "name", problem)
    _check_date(file, settings.compatibility_date)
    _name_resources(settings)
    main = folder / settings.main
    if main.suffix not in {".py", *JAVASCRIPT}:
        supported = ", ".join(sorted({".py", *JAVASCRIPT}))
        raise ConfigError(file, "main", f"{settings.main!r} is no module of a Worker ({supported})")
    if not is_file(main):
        raise ConfigError(file, "main", f"there is no file {settings.main!r} in {folder}")
    main = main.resolve()
    for index, each in enumerate(settings.pipelines):
        if not each.target:
            raise ConfigError(file, f"pipelines[{index}]", "needs `stream`, the pipeline's name")
    absent = absent_bindings(raw)
    used = set(WranglerFile.__struct_fields__)
    if main.suffix not in JAVASCRIPT:
        used -= BUILD_KEYS
    known = KEYS[""] - used - {"$schema", *absent.values(), _STREAMING}
    ignored = sorted(raw.keys() & known)
    for index, cron in enumerate(settings.triggers.crons):
        try:
            parse_cron(cron)
        except ValueError as error:
            raise ConfigError(file, f"triggers.crons[{index}]", str(error)) from error
    given = None
    if settings.secrets is not None:
        given = [*settings.vars, *settings.secrets.required]
    secrets = local_secrets(folder, environment, given, variables)
    warnings += [
        f"secret {name} is required and in no .dev.vars or .env file"
        for name in (settings.secrets.required if settings.secrets else ())
        if name not in secrets
    ]
    warnings += [
        *(f"{key} is not in edgesim: env.{name} is not there" for name, key in absent.items()),
        *([_NO_STREAMING] if raw.get(_STREAMING) else []),
    ]
    worker = WorkerConfig(
        file, main, settings, secrets, ignored, warnings, _routes(file, settings), absent
    )
    worker.bindings()
    check_datasets(file, settings.analytics_engine_datasets)
    for index, bucket in enumerate(settings.r2_buckets):
        check_bucket(file, f"r2_buckets[{index}].bucket_name", bucket.bucket_name)
    return worker


def wrangler_file(place: Path) -> Path:
    """The wrangler file in a folder, or the file itself; ConfigError if there is none."""
    file = find_wrangler_file(place)
    if file is None:
        raise ConfigError(place, None, f"no Worker here: expected one of {', '.join(FILES)}")
    return file


def find_wrangler_file(place: Path) -> Path | None:
    """The wrangler file in a folder, or the file itself; None if there is none."""
    return next((each for each in (place, *map(place.joinpath, FILES)) if is_file(each)), None)


def _check_date(file: Path, text: str) -> None:
    """Raise ConfigError for an invalid compatibility date; a missing one is accepted here."""
    parts = _DATE.fullmatch(text)
    try:
        if parts is not None:
            date(*map(int, parts.groups()))
        elif text:
            raise ValueError
    except ValueError as error:
        problem = f"{text!r} is not a date; write it as YYYY-MM-DD"
        raise ConfigError(file, "compatibility_date", problem) from error


def _name_of(folder: Path) -> str:
    """Default name of a Worker: its folder's name with invalid characters replaced."""
    return re.sub(r"[^a-z0-9_-]+", "-", folder.resolve().name.lower()).strip("-") or "worker"


def _name_resources(settings: WranglerFile) -> None:
    """Name the buckets, namespaces and queues without a name, as wrangler does on deploy."""
    for bucket in settings.r2_buckets:
        bucket.bucket_name = bucket.bucket_name or provisioned_name(settings.name, bucket.binding)
    for namespace in settings.kv_namespaces:
        namespace.id = namespace.id or provisioned_name(settings.name, namespace.binding)
    for producer in settings.queues.producers:
        producer.queue = producer.queue or provisioned_name(settings.name, producer.binding)


def provisioned_name(worker: str, binding: str) -> str:
    """The name of a resource whose binding names none: wrangler creates it on deploy."""
    return f"{worker}-{binding.lower()}".replace("_", "-")


def _routes(file: Path, settings: WranglerFile) -> list[Route]:
    if settings.route is not None and settings.routes:
        raise ConfigError(file, "route", "stands beside `routes`; one of them is enough")
    routes = [settings.route] if settings.route is not None else settings.routes
    try:
        return [parse_route(route) for route in routes]
    except ValueError as error:
        raise ConfigError(file, "route" if settings.route else "routes", str(error)) from error

"""A Worker's own file: ``wrangler.jsonc``, ``wrangler.json`` or ``wrangler.toml``.

Read as Cloudflare's own tool reads it (facts: wrangler's config schema).  Keys of Cloudflare's that
mean nothing here are accepted and listed; a key that edgesim knows must have the right type.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from edgesim.config.cron import parse_cron
from edgesim.config.routes import Route, RouteConfig, parse_route
from edgesim.config.wrangler_env import in_environment
from edgesim.errors import ConfigError
from edgesim.model import BindingSpec

WORKERS_DEV = "workers.dev"
FILES = ("wrangler.jsonc", "wrangler.json", "wrangler.toml")

_STRING_OR_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_STRING_OR_TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\\n])*")|,(?=\s*[}\]])')
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class R2Binding(msgspec.Struct):
    """A bucket on ``env``."""

    binding: str
    bucket_name: str


class Producer(msgspec.Struct):
    """A queue on ``env``; ``delivery_delay`` in seconds, None leaves it to the queue."""

    binding: str
    queue: str
    delivery_delay: float | None = None


class ConsumerConfig(msgspec.Struct):
    """One queue that the Worker consumes; defaults are Cloudflare's, not its local tool's.

    ``http_pull``: not the Worker but whoever asks over HTTP, who has ``visibility_timeout_ms`` to
    answer for what was given.
    """

    queue: str
    type: Literal["worker", "http_pull"] = "worker"
    visibility_timeout_ms: int | None = None
    max_batch_size: int | None = None
    max_batch_timeout: float = 5
    max_retries: int = 3
    dead_letter_queue: str | None = None
    retry_delay: float = 0
    max_concurrency: int | None = None


class Queues(msgspec.Struct):
    """What the Worker produces to and consumes."""

    producers: list[Producer] = []
    consumers: list[ConsumerConfig] = []

    def of_type(self, kind: str) -> list[ConsumerConfig]:
        """The consumers of that type."""
        return [each for each in self.consumers if each.type == kind]


class PipelineBinding(msgspec.Struct):
    """``pipeline`` is the older name of ``stream`` and still accepted by Cloudflare."""

    binding: str
    stream: str | None = None
    pipeline: str | None = None

    @property
    def target(self) -> str:
        return self.stream or self.pipeline or ""


class ServiceBinding(msgspec.Struct):
    """Another Worker, or the ClickHouse gateway, on ``env``."""

    binding: str
    service: str
    entrypoint: str | None = None


class TailConsumer(msgspec.Struct):
    """A Tail Worker that is told of this Worker's invocations."""

    service: str
    environment: str | None = None

    @property
    def target(self) -> str:
        """The Worker's whole name."""
        return f"{self.service}-{self.environment}" if self.environment else self.service


class Triggers(msgspec.Struct):
    """Times to run the scheduled handler, in UTC."""

    crons: list[str] = []


class Limits(msgspec.Struct):
    """Limits of one invocation; None means the platform's own."""

    cpu_ms: Annotated[int, msgspec.Meta(ge=1, le=300_000)] | None = None
    subrequests: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None


class WranglerFile(msgspec.Struct):
    """The keys that edgesim acts on."""

    name: str
    main: str
    compatibility_date: str = ""
    compatibility_flags: list[str] = []
    vars: dict[str, Any] = {}
    r2_buckets: list[R2Binding] = []
    queues: Queues = msgspec.field(default_factory=Queues)
    pipelines: list[PipelineBinding] = []
    services: list[ServiceBinding] = []
    tail_consumers: list[TailConsumer] = []
    triggers: Triggers = msgspec.field(default_factory=Triggers)
    route: str | RouteConfig | None = None
    routes: list[str | RouteConfig] = []
    workers_dev: bool | None = None
    limits: Limits = msgspec.field(default_factory=Limits)


class WorkerConfig(msgspec.Struct):
    """One Worker: where its file and module are, and what the file says."""

    file: Path
    main: Path
    settings: WranglerFile
    secrets: dict[str, str] = {}
    ignored_keys: list[str] = []
    warnings: list[str] = []
    routes: list[Route] = []

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def zones(self) -> set[str]:
        """Where the Worker is reached; on workers.dev too, unless it has routes or says no."""
        zones = {route.zone for route in self.routes}
        on_workers_dev = self.settings.workers_dev
        if on_workers_dev or (on_workers_dev is None and not zones):
            zones.add(WORKERS_DEV)
        return zones

    def version_id(self) -> str:
        """A UUID of what the Worker is now: its settings and the modules beside ``main``."""
        digest = hashlib.sha256(msgspec.json.encode(self.settings))
        for module in sorted(self.main.parent.glob("*.py")):
            digest.update(module.name.encode() + b"\0" + module.read_bytes())
        return str(uuid.UUID(bytes=digest.digest()[:16], version=4))

    def bindings(self) -> list[BindingSpec]:
        """Everything on ``env``.  ConfigError where a name is bound twice."""
        settings = self.settings
        texts = settings.vars | self.secrets
        specs = [
            BindingSpec(name, "text" if isinstance(value, str) else "json", value)
            for name, value in texts.items()
        ]
        specs += [BindingSpec(each.binding, "r2") for each in settings.r2_buckets]
        specs += [BindingSpec(each.binding, "queue") for each in settings.queues.producers]
        specs += [BindingSpec(each.binding, "pipeline") for each in settings.pipelines]
        specs += [BindingSpec(each.binding, "service") for each in settings.services]
        names = [spec.name for spec in specs]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(self.file, name, "is bound twice; every name on env is one thing")
        return specs


def load_worker(folder: Path, environment: str | None = None) -> WorkerConfig:
    """Read the Worker in ``folder`` as the environment has it; ConfigError says what is wrong."""
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        raise ConfigError(folder, None, f"no Worker here: expected one of {', '.join(FILES)}")
    raw, warnings = in_environment(file, read_table(file), environment)
    settings = convert(file, raw, WranglerFile)
    if not _NAME.fullmatch(settings.name):
        raise ConfigError(
            file, "name", f"{settings.name!r} is not lower-case letters, digits, dashes"
        )
    main = (folder / settings.main).resolve()
    if main.suffix != ".py":
        raise ConfigError(file, "main", f"{settings.main!r} is not a Python module (.py)")
    if not main.is_file():
        raise ConfigError(file, "main", f"there is no file {settings.main!r} in {folder}")
    for index, each in enumerate(settings.pipelines):
        if not each.target:
            raise ConfigError(file, f"pipelines[{index}]", "needs `stream`, the pipeline's name")
    ignored = sorted(set(raw) - set(WranglerFile.__struct_fields__) - {"$schema"})
    for index, service in enumerate(settings.services):
        if service.entrypoint not in {None, "default", "Default"}:
            problem = "named entrypoints are not in edgesim; bind the Worker's Default class"
            raise ConfigError(file, f"services[{index}].entrypoint", problem)
    for index, cron in enumerate(settings.triggers.crons):
        try:
            parse_cron(cron)
        except ValueError as error:
            raise ConfigError(file, f"triggers.crons[{index}]", str(error)) from error
    secrets = _dev_vars(folder, environment)
    worker = WorkerConfig(file, main, settings, secrets, ignored, warnings, _routes(file, settings))
    worker.bindings()
    return worker


def read_table(file: Path) -> dict[str, Any]:
    """A TOML, JSON or JSONC file as a dict; ConfigError with the line of a syntax error."""
    try:
        text = file.read_text("utf-8")
        table = tomllib.loads(text) if file.suffix == ".toml" else parse_jsonc(text)
    except OSError as error:
        raise ConfigError(file, None, f"cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(file, None, f"not valid {file.suffix[1:].upper()}: {error}") from error
    if not isinstance(table, dict):
        raise ConfigError(file, None, "must be a table of keys at the top")
    return table


def parse_jsonc(text: str) -> Any:
    """JSON with // and /* */ comments and trailing commas; positions in errors stay right."""
    text = _STRING_OR_COMMENT.sub(lambda m: m[1] or re.sub(r"[^\n]", " ", m[0]), text)
    return json.loads(_STRING_OR_TRAILING_COMMA.sub(lambda m: m[1] or " ", text))


def convert(file: Path, table: Any, kind: type[Any]) -> Any:
    """The table as a struct; ConfigError names the key that does not fit."""
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        key = path.rstrip("`").lstrip(".") or None
        raise ConfigError(file, key, problem) from error


def _routes(file: Path, settings: WranglerFile) -> list[Route]:
    if settings.route is not None and settings.routes:
        raise ConfigError(file, "route", "stands beside `routes`; one of them is enough")
    routes = [settings.route] if settings.route is not None else settings.routes
    try:
        return [parse_route(route) for route in routes]
    except ValueError as error:
        raise ConfigError(file, "route" if settings.route else "routes", str(error)) from error


def _dev_vars(folder: Path, environment: str | None) -> dict[str, str]:
    """Local secrets, lines of NAME=value.

    ``.dev.vars.<env>`` stands for ``.dev.vars``, and either for all of ``.env``; an environment's
    ``.env.<env>`` is over ``.env``.
    """
    suffixes = ["", f".{environment}"] if environment else [""]
    for suffix in reversed(suffixes):
        if (file := folder / f".dev.vars{suffix}").is_file():
            return dict(_assignments(file))
    files = [folder / f".env{suffix}" for suffix in suffixes]
    return dict(pair for file in files if file.is_file() for pair in _assignments(file))


def _assignments(file: Path) -> list[tuple[str, str]]:
    pairs = []
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(file, None, f"cannot be read: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip().removeprefix("export ")
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not equals:
            raise ConfigError(file, f"line {number}", "expected NAME=value")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        pairs.append((name.strip(), value))
    return pairs

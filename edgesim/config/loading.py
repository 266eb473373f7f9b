"""Finding a project, and reading all of its files into a checked Project.

An unknown key in edgesim's own tables is an error that suggests the nearest known key.
"""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec

from edgesim import drivers
from edgesim.config.alone import assumed
from edgesim.config.buckets import check_bucket
from edgesim.config.dataflow import (
    Dataflow,
    SqlPipelineConfig,
    read_dataflow,
    take_sql_pipelines,
)
from edgesim.config.environment import Environment
from edgesim.config.files import convert, is_file, read_table, read_text
from edgesim.config.lifecycle import check_lifecycle
from edgesim.config.notifications import check_notifications
from edgesim.config.observability import export_target
from edgesim.config.outbound import allowed
from edgesim.config.pipelines import check_pipelines
from edgesim.config.project import (
    DEFAULT,
    FILE,
    STATE,
    AccountFile,
    BackendUrls,
    Overrides,
    Project,
    is_service_name,
)
from edgesim.config.references import check_references
from edgesim.config.streams import resolve_streams
from edgesim.config.wrangler import (
    FILES,
    WorkerConfig,
    find_wrangler_file,
    load_worker,
    wrangler_file,
)
from edgesim.errors import ConfigError, UsageError
from edgesim.urls import path_of

_NONE = Overrides()
_NOTHING = Environment()


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
    """Read and check the whole project; ConfigError names file, key and fix."""
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
    inspected = [each for each in workers.values() if overrides.inspect and each.is_javascript]
    for worker in inspected:
        worker.inspected = True
    if overrides.inspect and not inspected:
        problem = "--inspect is for Workers in JavaScript, and the project has none"
        cure = "for Python run --isolation inline and call breakpoint()"
        raise UsageError(problem, cure)
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
        | overrides.isolation
        | {each.name: "warm" for each in inspected},
        account=account,
        backends=backends,
        workers=workers,
        dataflow=dataflow,
        export=export_target(file, account.observability, environment.variables),
        ingest_token=environment.ingest_token,
        schema=_read_schema(file, root, account),
        overridden=_overridden(overrides, environment),
        state_name=(overrides.state or root / STATE).absolute(),
        environment=environment_name,
        defaults=defaults,
    )
    _check_drivers(project)
    check_references(project)
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
        check_lifecycle(file, name, bucket.lifecycle)
    for name, queue in account.queues.items():
        if queue.pull and queue.pull.dead_letter_queue == name:
            key = f"queues.{name}.pull.dead_letter_queue"
            raise ConfigError(file, key, "is the queue itself; name another queue")
    if not is_service_name(account.clickhouse.service):
        problem = f"{account.clickhouse.service!r} is not letters, digits, dashes and underscores"
        raise ConfigError(file, "clickhouse.service", problem)
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

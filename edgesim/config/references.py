"""References between the parts of a project: bindings that name pipelines, Workers and queues."""

from __future__ import annotations

from pathlib import Path

from edgesim.config.alone import not_given
from edgesim.config.pipelines import is_stream_id
from edgesim.config.project import DEFAULT, FILE, Project
from edgesim.config.streams import no_such_stream
from edgesim.errors import ConfigError, hint


def check_references(project: Project) -> None:
    """Raise ConfigError for a reference to an unknown name, or a second consumer of a queue.

    Also for a cycle of Tail Workers.
    """
    _check_names(project)
    _check_tails(project)


def _check_names(project: Project) -> None:
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
    targets = {
        name: {tail.target for tail in worker.settings.tail_consumers} - {name}
        for name, worker in project.workers.items()
    }
    for name, worker in project.workers.items():
        seen: set[str] = set()
        after = targets[name]
        while after:
            if name in after:
                problem = f"leads back to {name!r} itself: each trace would make another, for ever"
                raise ConfigError(worker.file, "tail_consumers", problem)
            seen |= after
            after = set().union(*(targets[each] for each in after)) - seen


def _unknown(file: Path, key: str, kind: str, name: str, known: list[str]) -> None:
    raise ConfigError(file, key, f"there is no {kind} named {name!r}; {hint(name, known)}")

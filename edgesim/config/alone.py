"""A project without edgesim.toml: one or more wrangler files, and defaults for the rest."""

from __future__ import annotations

import re
from pathlib import Path

from edgesim.config.pipelines import PipelineConfig, is_stream_id
from edgesim.config.wrangler import PipelineBindingConfig, WorkerConfig

CURE = "add its wrangler file with -c"
_NO_NAME = re.compile(r"[^A-Za-z0-9_]")


def assumed(
    file: Path, workers: dict[str, WorkerConfig], state: Path
) -> tuple[dict[str, PipelineConfig], list[str]]:
    """The pipelines that the Workers bind, and one line of text per assumption.

    Changes the Workers: a binding is renamed if its stream's name is not a valid pipeline name, and
    tail consumers that are not among ``workers`` are removed, since a Worker runs without them.
    """
    entry = next(iter(workers))
    lines = [f"no edgesim.toml: {file.name} of Worker {entry!r} is run, with its state in {state}"]
    if len(workers) > 1:
        names = ", ".join(list(workers)[1:])
        lines.append(f"also Workers {names}; {entry!r} is the entry")
    pipelines: dict[str, PipelineConfig] = {}
    for worker in workers.values():
        for binding in worker.settings.pipelines:
            name, identifier = _named(binding, pipelines)
            binding.stream = name
            if name not in pipelines:
                pipelines[name] = PipelineConfig(_bucket(name), identifier)
                lines.append(
                    f"pipeline {name!r}: bucket {_bucket(name)!r}, rolled every "
                    f"{pipelines[name].max_seconds:.0f} s"
                )
        tails = worker.settings.tail_consumers
        given = [each for each in tails if each.target in workers]
        lines += [
            f"tail consumer {each.target!r} of {worker.name!r} is left out: {CURE}"
            for each in tails
            if each not in given
        ]
        worker.settings.tail_consumers = given
    return pipelines, lines


def _named(
    binding: PipelineBindingConfig, pipelines: dict[str, PipelineConfig]
) -> tuple[str, str | None]:
    """The pipeline's name, and the stream's id if the binding has one.

    With an id, the name is derived from the binding's name; the id is appended if another stream
    already has that name.
    """
    if not is_stream_id(binding.target):
        return _NO_NAME.sub("_", binding.target), None
    name = _NO_NAME.sub("_", binding.binding.lower())
    other = pipelines.get(name)
    is_free = other is None or other.id == binding.target
    return (name if is_free else f"{name}_{binding.target}"), binding.target


def not_given(service: str) -> str:
    """Error text for a service binding to a Worker that is not among those that run."""
    return f"Worker {service!r} is not among those that run; {CURE}"


def _bucket(name: str) -> str:
    return f"pipeline-{name}".lower().replace("_", "-")[:63].strip("-")

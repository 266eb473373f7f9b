"""Streams that a wrangler file names by their id on Cloudflare."""

from __future__ import annotations

from edgesim.config.dataflow import Dataflow
from edgesim.config.pipelines import PipelineConfig
from edgesim.config.wrangler import WorkerConfig


def resolve_streams(
    pipelines: dict[str, PipelineConfig], dataflow: Dataflow, workers: dict[str, WorkerConfig]
) -> None:
    """Replace the ids in the Workers' bindings by the names of their streams or pipelines."""
    names = {config.id: name for name, config in pipelines.items() if config.id} | dataflow.ids()
    for worker in workers.values():
        for binding in worker.settings.pipelines:
            if binding.target in names:
                binding.stream = names[binding.target]


def no_such_stream(identifier: str) -> str:
    """Error text for a binding whose id belongs to no pipeline, with the fix."""
    return (
        f"no stream has the id {identifier}; "
        f'write `id = "{identifier}"` into its [streams.NAME] or [pipelines.NAME] of edgesim.toml'
    )

"""Streams that a wrangler file names by their id on Cloudflare."""

from __future__ import annotations

from edgesim.config.pipelines import PipelineConfig
from edgesim.config.wrangler import WorkerConfig


def resolve_streams(pipelines: dict[str, PipelineConfig], workers: dict[str, WorkerConfig]) -> None:
    """Replace the ids in the Workers' bindings by the names of the pipelines with those ids."""
    names = {config.id: name for name, config in pipelines.items() if config.id}
    for worker in workers.values():
        for binding in worker.settings.pipelines:
            if binding.target in names:
                binding.stream = names[binding.target]


def no_such_stream(identifier: str) -> str:
    """Error text for a binding whose id belongs to no pipeline, with the fix."""
    return (
        f"no pipeline has the id {identifier}; "
        f'write `id = "{identifier}"` into its [pipelines.NAME] of edgesim.toml'
    )

"""Target names of fault rules in a project, and the paths of its stores on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgesim import drivers, urls
from edgesim.config import Project
from edgesim.faults.targets import store_targets

_AREAS = ("pipelines", "analytics", "r2", "blobs", "queues", "kv")


def targets_of(project: Project) -> Mapping[str, Sequence[str]]:
    """Target names that fault rules may use in this project, by group."""
    sendable = [*project.account.pipelines, *project.dataflow.streams]
    return {
        **store_targets(project),
        "pipelines": ["pipelines", *(f"pipelines.{name}" for name in sendable)],
        "workers": ["workers", *project.workers],
        "platform": ["platform"],
        "disk": ["disk", *(f"disk.{area}" for area in _AREAS)],
        "clock": ["clock"],
    }


def areas_of(project: Project) -> dict[Path, str]:
    """Files and folders that persist between platform runs, with their fault targets."""
    areas = {logs_of(project): "disk.pipelines"}
    if project.datasets():
        areas[project.state / "analytics"] = "disk.analytics"
    for name in ("r2", "queues", "kv"):
        url = getattr(project.backends, name)
        if project.uses(name) and drivers.properties(name, url).files:
            areas[Path(urls.path_of(url)).absolute()] = f"disk.{name}"
    if (blobs := blobs_of(project)) is not None:
        areas[blobs] = "disk.blobs"
    return areas


def logs_of(project: Project) -> Path:
    """Folder of the logs of Pipelines and streams, with a subfolder for each."""
    return project.state / "pipelines"


def blobs_of(project: Project) -> Path | None:
    """Folder of the objects' bytes; None if the R2 driver has none."""
    url = project.backends.r2
    folder = drivers.properties("r2", url).blobs
    return None if folder is None else Path(urls.path_of(url)).absolute() / folder

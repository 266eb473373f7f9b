"""The places of a project at which records can be watched."""

from __future__ import annotations

from edgesim.errors import UsageError, hint
from edgesim.simulator import Simulator


def places(simulator: Simulator) -> list[str]:
    """The names of all places, in the order of the flow."""
    primitives = simulator.primitives
    groups = {
        "workers": list(simulator.workers),
        "tails": list(primitives.tails),
        "pipelines": list(primitives.pipelines),
        "streams": list(primitives.streams),
        "r2": sorted(primitives.bucket_names()),
        "queues": sorted(primitives.queue_names()),
    }
    named = [f"{group}.{name}" for group, names in groups.items() for name in names]
    return [*named, "clickhouse"]


def place_of(simulator: Simulator, name: str) -> str:
    """The place of that name; UsageError if there is none.

    The bare name of a Worker is its console, that of a Tail Worker is what it receives.
    """
    known = places(simulator)
    for place in (name, f"tails.{name}", f"workers.{name}"):
        if place in known:
            return place
    raise UsageError(f"there is no place {name!r} to watch", hint(name, known))

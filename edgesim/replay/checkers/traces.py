"""Checks that each invocation of a tailed Worker produced one trace, delivered or lost."""

from __future__ import annotations

from edgesim.replay.world import World


async def check(world: World) -> list[str]:
    """Compare counts; traces that a kill removed from memory count as lost."""
    finished = accounted = 0
    for name, worker in world.project.workers.items():
        outcomes = world.history.invocations.get(name)
        tails = {tail.target for tail in worker.settings.tail_consumers} - {name}
        finished += len(tails) * (outcomes.total() if outcomes else 0)
    for flow in world.history.tails.values():
        accounted += flow.entered
    accounted += world.history.traces_lost_by_kills
    if accounted != finished:
        return [
            f"{finished} traced invocations have ended, and {accounted} traces are accounted for"
        ]
    return []

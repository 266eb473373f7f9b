"""Each invocation of a Worker with a Tail Worker gave one trace: delivered, or counted as lost."""

from __future__ import annotations

from edgesim.replay.world import World


async def check(world: World) -> list[str]:
    """Traces that were in memory when the platform was killed are lost as well, and known."""
    finished = told = 0
    for name, worker in world.project.workers.items():
        outcomes = world.history.invocations.get(name)
        tails = {tail.target for tail in worker.settings.tail_consumers} - {name}
        finished += len(tails) * (outcomes.total() if outcomes else 0)
    for flow in world.history.tails.values():
        told += flow.entered
    told += world.history.traces_lost_by_kills
    if told != finished:
        return [f"{finished} traced invocations have ended, and {told} traces are accounted for"]
    return []

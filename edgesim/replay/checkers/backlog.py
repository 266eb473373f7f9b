"""Once it is calm, nothing is on its way any more."""

from __future__ import annotations

from edgesim.replay.world import World


async def check(world: World) -> list[str]:
    """Pipelines hold no record, the outbox no notification, queues nothing that is due."""
    if await world.is_quiet(world.clock.now()):
        return []
    return ["something is still on its way although nothing fails any more"]

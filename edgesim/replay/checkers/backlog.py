"""Checks that no work remains once faults have stopped."""

from __future__ import annotations

from edgesim.replay.world import World


async def check(world: World) -> list[str]:
    """Pipelines hold no records, the outbox no notifications, queues no messages that are due."""
    if await world.is_quiet(world.clock.now()):
        return []
    return ["something is still on its way although nothing fails any more"]

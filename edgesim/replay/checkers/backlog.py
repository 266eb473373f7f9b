"""Checks that no work remains once faults have stopped."""

from __future__ import annotations

from edgesim.replay.world import World


async def check(world: World) -> list[str]:
    """Pipelines hold no records, the outbox no notifications, queues no messages that are due."""
    if await world.is_quiet(world.clock.now()):
        return []
    return ["work is still in progress although faults have ended"]

"""Checks that for each object that matches a notification rule a message was sent."""

from __future__ import annotations

from edgesim.replay.digests import digest_of
from edgesim.replay.world import World


async def check(world: World) -> list[str]:
    """Check the objects that this replay stored and that still exist."""
    problems = []
    history = world.history
    for bucket, config in world.project.account.r2.items():
        untold = history.stored[bucket].absent_from(history.told[bucket])
        rules = [rule for rule in config.notifications if rule.event == "object-create"]
        for rule in rules if untold else []:
            problems += [
                f"no message to queue {rule.queue} tells of {bucket}/{found.key}"
                async for found in world.simulator.primitives.objects(bucket, rule.prefix)
                if found.key.endswith(rule.suffix) and digest_of(found.key) in untold
            ]
    return problems

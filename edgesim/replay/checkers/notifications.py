"""Checks that a message was sent for each object that matches a notification rule."""

from __future__ import annotations

from edgesim.replay.digests import digest_of
from edgesim.replay.world import World


async def check(world: World) -> list[str]:
    """Check the objects that this replay stored and that still exist."""
    problems = []
    history = world.history
    for bucket, config in world.project.account.r2.items():
        unnotified = history.stored[bucket].absent_from(history.notified[bucket])
        rules = [rule for rule in config.notifications if rule.event == "object-create"]
        for rule in rules if unnotified else []:
            problems += [
                f"no message to queue {rule.queue} for {bucket}/{found.key}"
                async for found in world.simulator.primitives.objects(bucket, rule.prefix)
                if found.key.endswith(rule.suffix) and digest_of(found.key) in unnotified
            ]
    return problems

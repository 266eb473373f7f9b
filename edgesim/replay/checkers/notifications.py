"""For every object whose bucket has a rule for it, a message was sent to the rule's queue."""

from __future__ import annotations

from edgesim.replay.history import notified
from edgesim.replay.world import World


async def check(world: World) -> list[str]:
    """Of the objects that are there now."""
    told = {notified(message.body) for message in world.history.messages.values()}
    problems = []
    for bucket, key in world.history.objects:
        config = world.project.account.r2.get(bucket)
        for rule in config.notifications if config else []:
            wanted = (
                rule.event == "object-create"
                and key.startswith(rule.prefix)
                and key.endswith(rule.suffix)
            )
            if wanted and (bucket, key) not in told:
                problems.append(f"no message to queue {rule.queue} tells of {bucket}/{key}")
    return problems

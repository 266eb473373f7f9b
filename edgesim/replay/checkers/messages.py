"""Checks that every sent message has been acknowledged, or is still in its queue."""

from __future__ import annotations

from collections import Counter

from edgesim.replay.world import World


async def check(world: World) -> list[str]:
    """Compare counts: messages without an outcome must be those that the queues still hold."""
    waiting: Counter[str] = Counter(sent.queue for sent in world.history.messages.values())
    problems = []
    for queue in sorted(world.simulator.primitives.queue_names() | waiting.keys()):
        dropped = world.history.queues[queue].lost if queue in world.history.queues else 0
        held = (await world.simulator.primitives.queue(queue).depth()).messages
        if held + dropped != waiting[queue]:
            problems.append(
                f"queue {queue}: {waiting[queue]} messages were neither acked nor moved on, "
                f"{held} are there and {dropped} were dropped"
            )
    return problems + _early_deaths(world) + _without_handler(world)


def _without_handler(world: World) -> list[str]:
    """Messages that left a queue with a dead-letter queue although no handler acknowledged them."""
    return [
        f"queue {consumer.queue}: {count} messages were acknowledged and no handler had done so"
        for worker in world.project.workers.values()
        for consumer in worker.settings.queues.consumers
        if consumer.dead_letter_queue and (count := world.history.untaken[consumer.queue])
    ]


def _early_deaths(world: World) -> list[str]:
    """Messages that a consumer gave up before ``max_retries`` + 1 deliveries."""
    project = world.project
    retries = {name: pull.max_retries for name, pull in project.pull_consumers().items()} | {
        consumer.queue: consumer.max_retries
        for worker in project.workers.values()
        for consumer in worker.settings.queues.consumers
    }
    problems = []
    for (queue, attempts), count in sorted(world.history.deaths.items()):
        wanted = 1 + retries[queue]
        if attempts < wanted:  # a kill may cost a delivery that was not observed
            problems.append(
                f"queue {queue}: {count} messages were given up after {attempts} deliveries "
                f"of {wanted}"
            )
    return problems

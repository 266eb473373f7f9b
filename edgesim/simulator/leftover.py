"""Unfinished work by stage: the condition of a drain, and its report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from edgesim.queues.consumer import Consumer
from edgesim.queues.driver import Depth
from edgesim.runtime.worker import Worker
from edgesim.simulator.primitives import Primitives

NOTIFICATIONS_MAX = 1_000
"""Limit of notifications counted; a larger number is reported as this one."""


class Leftover(msgspec.Struct):
    """Unfinished work.

    ``left`` has only non-empty stages: invocations, tail, pipelines, streams, datasets,
    notifications, queues.
    ``dead_letters`` counts messages in dead-letter queues that have no consumer, or whose consumer
    has delayed them beyond the deadline: they are in their final place.  ``is_stuck``: nothing in
    ``left`` can progress before the deadline.
    """

    left: dict[str, Any] = {}
    dead_letters: dict[str, int] = {}
    is_stuck: bool = False


async def leftover(
    primitives: Primitives, workers: Mapping[str, Worker], deadline: float
) -> Leftover:
    """Read the unfinished work; queries the stores (RunError if one does not reply)."""
    moving = {
        "invocations": {name: worker.in_flight for name, worker in workers.items()},
        "tail": {name: tail.pending for name, tail in primitives.tails.items()},
        "pipelines": {name: pipeline.pending for name, pipeline in primitives.pipelines.items()},
        "streams": {name: stream.pending for name, stream in primitives.streams.items()},
        "datasets": {name: dataset.pending for name, dataset in primitives.datasets.items()},
    }
    found: dict[str, Any] = {
        stage: there
        for stage, counts in moving.items()
        if (there := {name: count for name, count in counts.items() if count})
    }
    if waiting := len(await primitives.backends.r2.outbox(NOTIFICATIONS_MAX)):
        found["notifications"] = waiting
    is_stuck = not found
    queues, dead_letters = {}, {}
    consumers, dead = primitives.project.consumers(), primitives.project.dead_letter_queues()
    for name, depth in (await _depths(primitives)).items():
        push = _push_consumer(primitives, name)
        is_paused = primitives.queue(name).paused and not (push and push.in_flight)
        waits = is_paused or _waits(consumers.get(name), push, depth, deadline)
        if name in dead and waits:
            dead_letters[name] = depth.messages
            continue
        paused = {"paused": True} if primitives.queue(name).paused else {}
        queues[name] = _shown(consumers.get(name), push, depth) | paused
        is_stuck = is_stuck and waits
    if queues:
        found["queues"] = queues
    return Leftover(found, dead_letters, is_stuck and bool(queues))


async def _depths(primitives: Primitives) -> dict[str, Depth]:
    """The depth of each queue that holds a message."""
    names = await primitives.backends.queues.names()
    found = {name: await primitives.queue(name).depth() for name in sorted(names)}
    return {name: depth for name, depth in found.items() if depth.messages}


def _push_consumer(primitives: Primitives, name: str) -> Consumer | None:
    return next((each for each in primitives.consumers if each.queue.name == name), None)


def _shown(consumer: str | None, push: Consumer | None, depth: Depth) -> dict[str, Any]:
    visible_at = depth.next_visible_at
    return {
        "messages": depth.messages,
        "in_flight": push.in_flight if push else 0,
        "next_visible_at": None if visible_at is None else _iso(visible_at),
        "consumer": consumer,
    }


def _waits(consumer: str | None, push: Consumer | None, depth: Depth, deadline: float) -> bool:
    """True if no Worker gets a message before the deadline: no consumer, or all delayed."""
    if consumer is None:
        return True
    if push is None or push.in_flight or depth.next_visible_at is None:
        return False
    return depth.next_visible_at >= deadline


def _iso(seconds: float) -> str:
    time = datetime.fromtimestamp(seconds, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")

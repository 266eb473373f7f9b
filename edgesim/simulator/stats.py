"""Counters per stage since a Simulator was opened, and what is stored now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from edgesim.queues.consumer import Consumer
from edgesim.queues.pull import PullConsumer
from edgesim.runtime.worker import Worker
from edgesim.simulator.primitives import Primitives


async def stats(primitives: Primitives, workers: Mapping[str, Worker]) -> dict[str, Any]:
    """The counters of every stage but the entry Worker's own requests, as JSON."""
    store = primitives.backends.r2
    buckets = sorted(primitives.buckets.keys() | set(await store.buckets()))
    tails = primitives.tails.values()
    return {
        "tail": {
            "items": sum(tail.items for tail in tails),
            "lost": sum(tail.lost for tail in tails),
            "pending": sum(tail.pending for tail in tails),
        },
        "pipelines": {
            name: {
                "records": pipeline.records,
                "bytes": pipeline.bytes,
                "pending": pipeline.pending,
                "objects": pipeline.objects,
                "dropped": dict(pipeline.dropped),
            }
            for name, pipeline in primitives.pipelines.items()
        },
        "r2": {name: await _of_bucket(primitives, name) for name in buckets},
        "queues": await _of_queues(primitives),
        "invocations": {name: dict(worker.outcomes) for name, worker in workers.items()},
        "cpu_ms": {name: round(worker.cpu_ms, 3) for name, worker in workers.items()},
    }


async def _of_queues(primitives: Primitives) -> dict[str, dict[str, int]]:
    consumers: dict[str, Consumer | PullConsumer] = {**primitives.pull_consumers}
    consumers |= {consumer.queue.name: consumer for consumer in primitives.consumers}
    found = {}
    for name in await _queue_names(primitives):
        consumer = consumers.get(name)
        found[name] = {
            "backlog": (await primitives.queue(name).depth()).messages,
            "operations": primitives.queue(name).operations,
            "delivered": consumer.delivered if consumer else 0,
            "retried": consumer.retried if consumer else 0,
            "dead": consumer.dead + consumer.lost if consumer else 0,
        }
    return found


async def _of_bucket(primitives: Primitives, name: str) -> dict[str, int]:
    objects, size = await primitives.backends.r2.usage(name)
    operations = primitives.r2_operations.get(name, Counter())
    configs = primitives.project.account.pipelines
    written = sum(
        pipeline.objects
        for each, pipeline in primitives.pipelines.items()
        if configs[each].bucket == name
    )
    return {
        "objects": objects,
        "bytes": size,
        "class_a": operations["class_a"] + written,
        "class_b": operations["class_b"],
    }


async def queue_ages(primitives: Primitives) -> dict[str, float]:
    """How long the oldest message of each queue has been there, in seconds; 0 for none."""
    now_ms = primitives.clock.now_ms()
    oldest = {
        name: (await primitives.queue(name).depth()).oldest_ms
        for name in await _queue_names(primitives)
    }
    return {
        name: 0.0 if since_ms is None else max(0, now_ms - since_ms) / 1000
        for name, since_ms in oldest.items()
    }


async def _queue_names(primitives: Primitives) -> list[str]:
    return sorted(primitives.queues.keys() | set(await primitives.backends.queues.names()))

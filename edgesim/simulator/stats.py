"""Counters by stage since a Simulator was opened, and the stores' current contents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from edgesim.pipelines.pipeline import Pipeline
from edgesim.pipelines.streams.pipeline import SqlPipeline
from edgesim.pipelines.streams.stream import RecordStream
from edgesim.queues.consumer import Consumer
from edgesim.queues.driver import Depth
from edgesim.queues.pull import PullConsumer
from edgesim.runtime.worker import Worker
from edgesim.simulator.primitives import Primitives

Usage = tuple[int, int]
"""Number of objects, and their total bytes."""


def counters(
    primitives: Primitives,
    workers: Mapping[str, Worker],
    depths: Mapping[str, Depth],
    usage: Mapping[str, Usage],
) -> dict[str, Any]:
    """The counters of every stage but the entry Worker's own requests, as JSON.

    Contents are reported for those queues and buckets only; no store is queried.
    """
    tails = primitives.tails.values()
    return {
        "tail": {
            "items": sum(tail.items for tail in tails),
            "lost": sum(tail.lost for tail in tails),
            "pending": sum(tail.pending for tail in tails),
            "pending_bytes": sum(tail.pending_bytes for tail in tails),
        },
        "pipelines": {
            name: _of_pipeline(pipeline)
            for name, pipeline in (primitives.pipelines | primitives.sql_pipelines).items()
        },
        "streams": {name: _of_stream(stream) for name, stream in primitives.streams.items()},
        "sinks": {name: _of_sink(primitives, name) for name in primitives.project.dataflow.sinks},
        "r2": {
            name: _of_bucket(primitives, name, usage.get(name))
            for name in sorted(primitives.buckets.keys() | usage.keys())
        },
        "queues": {
            name: _of_queue(primitives, name, depths.get(name))
            for name in sorted(primitives.queues.keys() | depths.keys())
        },
        "kv": {
            name: msgspec.to_builtins(namespace.operations)
            for name, namespace in sorted(primitives.namespaces.items())
        },
        "datasets": {
            name: msgspec.to_builtins(dataset.counts)
            | {"pending": dataset.pending, "rows": dataset.rows}
            for name, dataset in primitives.datasets.items()
        },
        "analytics_sql": {"queries": primitives.analytics_sql.queries},
        "invocations": {name: dict(worker.outcomes) for name, worker in workers.items()},
        "cpu_ms": {name: round(worker.cpu_ms, 3) for name, worker in workers.items()},
    }


async def depths(primitives: Primitives) -> dict[str, Depth]:
    """The depth of each queue; queries the store."""
    names = primitives.queues.keys() | set(await primitives.backends.queues.names())
    return {name: await primitives.queue(name).depth() for name in sorted(names)}


async def usage(primitives: Primitives) -> dict[str, Usage]:
    """Objects and bytes of each bucket; queries the store."""
    store = primitives.backends.r2
    names = primitives.buckets.keys() | set(await store.buckets())
    return {name: await store.usage(name) for name in sorted(names)}


def ages(found: Mapping[str, Depth], now_ms: float) -> dict[str, float]:
    """Age of the oldest message of each queue, in seconds; 0 for an empty queue."""
    return {
        name: 0.0 if depth.oldest_ms is None else max(0, now_ms - depth.oldest_ms) / 1000
        for name, depth in found.items()
    }


def _of_pipeline(pipeline: Pipeline | SqlPipeline) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "records": pipeline.records,
        "bytes": pipeline.bytes,
        "pending": pipeline.pending,
        "objects": pipeline.objects,
    }
    return counts | ({"dropped": dict(pipeline.dropped)} if isinstance(pipeline, Pipeline) else {})


def _of_stream(stream: RecordStream) -> dict[str, Any]:
    return {
        "records": stream.records,
        "bytes": stream.bytes,
        "pending": stream.pending,
        "dropped": dict(stream.drops.counts),
    }


def _of_sink(primitives: Primitives, name: str) -> dict[str, int]:
    readers = [
        reader
        for stream in primitives.streams.values()
        for reader in stream.readers
        if reader.sink.name == name
    ]
    written = [reader.written for reader in readers]
    return {
        "records": sum(each.rows for each in written),
        "bytes": sum(each.bytes for each in written),
        "files": sum(each.files for each in written),
        "failing": sum(bool(reader.problem) for reader in readers),
    }


def _of_queue(primitives: Primitives, name: str, depth: Depth | None) -> dict[str, int]:
    consumers: dict[str, Consumer | PullConsumer] = {**primitives.pull_consumers}
    consumers |= {consumer.queue.name: consumer for consumer in primitives.consumers}
    consumer = consumers.get(name)
    stored = {} if depth is None else {"backlog": depth.messages}
    return stored | {
        "operations": primitives.queue(name).operations,
        "delivered": consumer.delivered if consumer else 0,
        "retried": consumer.retried if consumer else 0,
        "dead": consumer.dead + consumer.lost if consumer else 0,
    }


def _of_bucket(primitives: Primitives, name: str, usage: Usage | None) -> dict[str, int]:
    operations = primitives.r2_operations.get(name, Counter())
    configs = primitives.project.account.pipelines
    written = sum(
        pipeline.objects
        for each, pipeline in primitives.pipelines.items()
        if configs[each].bucket == name
    )
    written += sum(
        reader.written.files
        for stream in primitives.streams.values()
        for reader in stream.readers
        if primitives.project.dataflow.sinks[reader.sink.name].bucket == name
    )
    stored = {} if usage is None else {"objects": usage[0], "bytes": usage[1]}
    return stored | {
        "class_a": operations["class_a"] + written,
        "class_b": operations["class_b"],
    }

"""The project as a graph: Workers, pipelines, buckets, queues and the database, and what flows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from edgesim.config import Project, WorkerConfig

Kind = Literal[
    "worker", "stream", "pipeline", "bucket", "queue", "namespace", "dataset", "database"
]
DATABASE = "ClickHouse"


class FlowNode(msgspec.Struct, frozen=True, order=True):
    """One primitive of the project."""

    kind: Kind
    name: str


class FlowEdge(msgspec.Struct, frozen=True, order=True):
    """Data or calls that go from one node to another; ``what`` names them.

    ``main`` edges are the way of the events; the others are calls that a handler may make.
    """

    source: FlowNode
    target: FlowNode
    what: str
    main: bool = True


class Topology(msgspec.Struct, frozen=True):
    """The graph; ``entry`` is the Worker that requests from outside reach first."""

    entry: FlowNode
    nodes: list[FlowNode]
    edges: list[FlowEdge]


def topology(project: Project) -> Topology:
    """The graph of a project, in an order that does not change."""
    edges = sorted({*_of_account(project), *_of_workers(project)})
    nodes = {node for edge in edges for node in (edge.source, edge.target)}
    nodes |= {FlowNode("worker", name) for name in project.workers}
    nodes |= {FlowNode("queue", name) for name in project.queue_names()}
    nodes |= {FlowNode("bucket", name) for name in project.bucket_names()}
    return Topology(FlowNode("worker", project.entry), sorted(nodes), edges)


def _of_account(project: Project) -> Iterator[FlowEdge]:
    for name, pipeline in project.account.pipelines.items():
        yield FlowEdge(FlowNode("pipeline", name), FlowNode("bucket", pipeline.bucket), "objects")
    flow = project.dataflow
    for name, spec in flow.pipelines.items():
        for statement in spec.statements:
            yield FlowEdge(
                FlowNode("stream", statement.stream), FlowNode("pipeline", name), "records"
            )
            bucket = flow.sinks[statement.sink].bucket
            yield FlowEdge(
                FlowNode("pipeline", name), FlowNode("bucket", bucket), f"sink {statement.sink}"
            )
    for name, config in project.account.r2.items():
        for rule in config.notifications:
            yield FlowEdge(FlowNode("bucket", name), FlowNode("queue", rule.queue), "notifications")
    for name, pull in project.pull_consumers().items():
        if pull.dead_letter_queue:
            yield FlowEdge(
                FlowNode("queue", name), FlowNode("queue", pull.dead_letter_queue), "dead letters"
            )


def _of_workers(project: Project) -> Iterator[FlowEdge]:
    for worker in project.workers.values():
        yield from _of_worker(project, worker)


def _of_worker(project: Project, worker: WorkerConfig) -> Iterator[FlowEdge]:
    here, settings = FlowNode("worker", worker.name), worker.settings
    for tail in settings.tail_consumers:
        yield FlowEdge(here, FlowNode("worker", tail.target), "traces")
    for pipeline in settings.pipelines:
        kind: Kind = "pipeline" if pipeline.target in project.account.pipelines else "stream"
        yield FlowEdge(here, FlowNode(kind, pipeline.target), "records")
    for producer in settings.queues.producers:
        yield FlowEdge(here, FlowNode("queue", producer.queue), "messages")
    for consumer in settings.queues.consumers:
        queue = FlowNode("queue", consumer.queue)
        yield FlowEdge(queue, here, "batches")
        if consumer.dead_letter_queue:
            yield FlowEdge(queue, FlowNode("queue", consumer.dead_letter_queue), "dead letters")
    for service in settings.services:
        if service.service in project.workers:
            yield FlowEdge(here, FlowNode("worker", service.service), "calls")
        else:
            yield FlowEdge(here, FlowNode("database", DATABASE), "SQL")
    for namespace in settings.kv_namespaces:
        yield FlowEdge(here, FlowNode("namespace", namespace.id), "values", main=False)
    for each in settings.analytics_engine_datasets:
        dataset = FlowNode("dataset", each.name)
        yield FlowEdge(here, dataset, "data points", main=False)
        yield FlowEdge(dataset, FlowNode("database", DATABASE), "rows", main=False)
    for bucket in settings.r2_buckets:
        yield FlowEdge(here, FlowNode("bucket", bucket.bucket_name), "objects", main=False)

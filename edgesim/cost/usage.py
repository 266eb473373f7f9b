"""Quantity of each billed item by stage of the pipeline.

A stage's usage is {item: quantity}, with the items of the price table. ``planned`` computes a
month's usage from a load; ``used`` reads the real usage of a run from its stats; ``measured``
derives a load's parameters (CPU ms, bytes) from a run, to replace the defaults.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from edgesim.config import Project

MONTH_DAYS = 30
OPERATIONS_PER_MESSAGE = 3
"""Write, read and delete."""
ITEMS = (
    *("requests", "cpu_ms", "pipeline_sql_gb", "pipeline_sink_gb", "pipeline_parquet_gb"),
    *("r2_class_a", "r2_class_b", "r2_gb_month", "queue_operations"),
    *("kv_reads", "kv_writes", "kv_deletes", "kv_lists"),
    *("data_points", "analytics_queries"),
)

Usage = dict[str, dict[str, float]]


class Load(msgspec.Struct, frozen=True):
    """A month's load and the resources that it takes.

    CPU ms are per request (receiver), per event (tail) and per object (insert). The defaults were
    measured with edgesim (0.25, 0.11 and 4 ms in CPython) and multiplied, because Python on the
    platform is WebAssembly and several times slower; measure your own. ``compression`` is the ratio
    of the objects in R2, which are stored for ``retention_days``.
    """

    events_per_day: float = 1e9
    event_bytes: float = 360
    events_per_request: float = 1
    window_seconds: float = 90
    object_bytes_max: float = 100_000_000
    compression: float = 7.0
    retention_days: float = 30
    receiver_cpu_ms: float = 1.0
    tail_cpu_ms: float = 0.4
    insert_cpu_ms: float = 15.0


class Roles(msgspec.Struct, frozen=True):
    """Roles of a project's Workers, which decide how they are billed.

    ``entry`` and ``consumers`` are billed by requests and CPU; every other Worker (tail Workers,
    Workers behind service bindings) by CPU only.  ``sql_pipelines`` are billed apart from their
    sinks; a pipeline of the legacy form is both.  ``parquet_sinks`` have a price of their own.
    """

    entry: str
    consumers: Sequence[str]
    sql_pipelines: Collection[str] = ()
    parquet_sinks: Collection[str] = ()


def planned(load: Load) -> Usage:
    """Compute a month's usage of this load by stage."""
    events = load.events_per_day * MONTH_DAYS
    gigabytes = events * load.event_bytes / 1e9
    windows = MONTH_DAYS * 86_400 / load.window_seconds
    # A window that reaches the size limit early yields more than one object.
    objects = max(min(windows, events), gigabytes * 1e9 / load.object_bytes_max)
    requests = events / load.events_per_request
    kept = gigabytes / load.compression * load.retention_days / MONTH_DAYS
    return {
        "receiver": {"requests": requests, "cpu_ms": requests * load.receiver_cpu_ms},
        "tail": {"cpu_ms": events * load.tail_cpu_ms},
        "pipeline": {
            "pipeline_sql_gb": gigabytes,
            "pipeline_sink_gb": gigabytes,
            "r2_class_a": objects,
        },
        "r2": {"r2_gb_month": kept},
        "queue": {"queue_operations": objects * OPERATIONS_PER_MESSAGE},
        "insert": {
            "requests": objects,
            "cpu_ms": objects * load.insert_cpu_ms,
            "r2_class_b": objects,
        },
    }


def used(stats: Mapping[str, Any], roles: Roles) -> Usage:
    """Usage of a run by Worker and store; objects in R2 count as kept for a month.

    Values in KV are not counted.
    """
    usage: Usage = {}
    for worker, outcomes in stats["invocations"].items():
        billed = {"cpu_ms": stats["cpu_ms"].get(worker, 0.0)}
        if worker == roles.entry:
            billed["requests"] = stats["receiver"]["requests"]
        elif worker in roles.consumers:
            billed["requests"] = sum(outcomes.values())
        usage[worker] = billed
    for name, pipeline in stats["pipelines"].items():
        gigabytes = pipeline["bytes"] / 1e9
        usage[f"pipeline {name}"] = {"pipeline_sql_gb": gigabytes}
        if name not in roles.sql_pipelines:
            usage[f"pipeline {name}"]["pipeline_sink_gb"] = gigabytes
    for name, sink in stats.get("sinks", {}).items():
        item = "pipeline_parquet_gb" if name in roles.parquet_sinks else "pipeline_sink_gb"
        usage[f"sink {name}"] = {item: sink["bytes"] / 1e9}
    for name, bucket in stats["r2"].items():
        usage[f"r2 {name}"] = {
            "r2_class_a": bucket["class_a"],
            "r2_class_b": bucket["class_b"],
            "r2_gb_month": bucket["bytes"] / 1e9,
        }
    for name, queue in stats["queues"].items():
        usage[f"queue {name}"] = {"queue_operations": queue["operations"]}
    for name, namespace in stats.get("kv", {}).items():
        usage[f"kv {name}"] = {f"kv_{operation}": count for operation, count in namespace.items()}
    for name, dataset in stats.get("datasets", {}).items():
        usage[f"dataset {name}"] = {"data_points": dataset["points"]}
    queries = stats.get("analytics_sql", {}).get("queries", 0)
    usage["analytics sql"] = {"analytics_queries": queries}
    return {stage: items for stage, items in usage.items() if any(items.values())}


def roles_of(project: Project) -> Roles:
    """The roles of a project's Workers."""
    consumers = [
        name for name, worker in project.workers.items() if worker.settings.queues.consumers
    ]
    flow = project.dataflow
    parquet = [name for name, sink in flow.sinks.items() if sink.format == "parquet"]
    return Roles(project.entry, consumers, list(flow.pipelines), parquet)


def a_month_of(usage: Usage, seconds: float) -> Usage:
    """The usage of a month that goes on like a run of ``seconds``; storage stays as it is."""
    factor = MONTH_DAYS * 86_400 / seconds
    return {
        stage: {
            item: quantity if item == "r2_gb_month" else quantity * factor
            for item, quantity in items.items()
        }
        for stage, items in usage.items()
    }


def measured(stats: Mapping[str, Any], load: Load) -> Load:
    """Replace the load's parameters by those measured in a run of the reference pipeline.

    A parameter that the run did not measure keeps its value.
    """
    events, bucket = stats["pipelines"].get("events", {}), stats["r2"].get("events", {})
    records, size = events.get("records", 0), events.get("bytes", 0)
    cpu, requests = stats["cpu_ms"], stats["receiver"]["requests"]
    inserts = sum(stats["invocations"].get("insert", {}).values())
    found = {
        "event_bytes": _ratio(size, records),
        "events_per_request": _ratio(records, requests - stats["receiver"]["rejected"]),
        "compression": _ratio(size, bucket.get("bytes", 0)),
        "receiver_cpu_ms": _ratio(cpu.get("receiver", 0), requests),
        "tail_cpu_ms": _ratio(cpu.get("tail", 0), records),
        "insert_cpu_ms": _ratio(cpu.get("insert", 0), inserts),
    }
    return msgspec.structs.replace(
        load, **{name: value for name, value in found.items() if value is not None}
    )


def _ratio(amount: float, of: float) -> float | None:
    return amount / of if amount > 0 and of > 0 else None

"""Stores, their operations and their parts, as fault rules name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgesim.config import Project
from edgesim.faults.stores import KV_METHODS, QUEUE_METHODS, R2_METHODS


def store_targets(project: Project) -> Mapping[str, Sequence[str]]:
    """Target names of the project's stores, by group."""
    buckets, queues = sorted(project.bucket_names()), sorted(project.queue_names())
    return {
        "r2": ["r2", *(f"r2.{name}" for name in (*R2_METHODS, *buckets))],
        "queues": ["queues", *(f"queues.{name}" for name in (*QUEUE_METHODS, *queues))],
        "kv": ["kv", *(f"kv.{name}" for name in KV_METHODS)],
        "clickhouse": ["clickhouse", "clickhouse.insert", "clickhouse.query"],
    }

"""Counters of a replay's stats by dotted path; an impossible path is an error."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from edgesim.kv.namespace import KvOperations
from edgesim.pipelines.schema import REASONS
from edgesim.simulator import Simulator

OUTCOMES = {
    *("ok", "exception", "canceled", "internalError"),
    *("exceededCpu", "exceededMemory", "exceededWallTime"),
}
_OF_A_QUEUE = {"backlog", "operations", "delivered", "retried", "dead"}
_OF_A_BUCKET = {"objects", "class_a", "class_b"}
_OF_A_NAMESPACE = set(KvOperations.__struct_fields__)


def at(stats: Mapping[str, Any], simulator: Simulator, path: str) -> Any:
    """The counter at a path; 0 if not counted yet; an error text if no such counter exists."""
    value: Any = stats
    parts = path.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(value, Mapping):
            return f"no counter {path!r}: {'.'.join(parts[:depth])} is a number"
        if part not in value:
            known = value.keys() | _countable(parts[:depth], simulator)
            if part not in known:
                place = ".".join(parts[:depth]) or "stats"
                return f"no counter {path!r}: {place} has {', '.join(sorted(known))}"
            value = {} if depth + 1 < len(parts) else 0
        else:
            value = value[part]
    return value


def _countable(place: list[str], simulator: Simulator) -> Collection[str]:
    """Names that are valid at this place but absent while their count is zero."""
    match place:
        case ["queues"]:
            return simulator.primitives.queue_names()
        case ["queues", _]:
            return _OF_A_QUEUE
        case ["r2"]:
            return simulator.primitives.bucket_names()
        case ["r2", _]:
            return _OF_A_BUCKET
        case ["kv"]:
            return simulator.project.kv_namespaces()
        case ["kv", _]:
            return _OF_A_NAMESPACE
        case ["datasets"]:
            return simulator.project.datasets()
        case ["invocations", _]:
            return OUTCOMES
        case ["pipelines" | "streams", _, "dropped"]:
            return REASONS
    return ()

"""The Simulator's counters, summed over several platform runs."""

from __future__ import annotations

from typing import Any


def counters(stats: dict[str, Any]) -> dict[str, Any]:
    """Counters that only increase; gauges are valid for the last platform run only."""
    gauges: dict[str, set[str]] = {
        "tail": {"pending", "pending_bytes"},
        "pipelines": {"pending", "bytes"},
        "streams": {"pending", "bytes"},
        "sinks": {"bytes"},
        "r2": {"objects", "bytes"},
        "queues": {"backlog"},
        "kv": set(),
        "datasets": {"pending"},
    }
    kept: dict[str, Any] = {"receiver": stats["receiver"], "invocations": stats["invocations"]}
    kept["tail"] = _without(stats["tail"], gauges["tail"])
    kept["analytics_sql"] = stats["analytics_sql"]
    for stage in [name for name in gauges if name != "tail"]:
        kept[stage] = {
            name: _without(counts, gauges[stage]) for name, counts in stats[stage].items()
        }
    return kept


def _without(counts: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in counts.items() if name not in names}


def add(one: Any, other: Any) -> Any:
    """Add two trees of numbers leaf by leaf."""
    if isinstance(one, dict) or isinstance(other, dict):
        one, other = one or {}, other or {}
        names = [*other, *(name for name in one if name not in other)]
        return {name: add(one.get(name, 0), other.get(name, 0)) for name in names}
    return one + other

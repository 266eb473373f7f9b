"""``GET metrics``: the counters of ``stats`` in Prometheus' text format.

https://prometheus.io/docs/instrumenting/exposition_formats/.  What only grows is a counter, what is
there now a gauge; ``stats`` has no histograms, so there are none here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_GAUGES = {"pending", "objects", "bytes", "backlog"}
# stage -> the label that its second level is: stats[stage][value][counter]
_LABELS = {"pipelines": "pipeline", "r2": "bucket", "queues": "queue"}


def render(stats: dict[str, Any]) -> str:
    """All of them, one family after the other."""
    families: dict[str, list[str]] = {}
    for name, labels, value in _samples(stats):
        families.setdefault(name, []).append(f"{name}{labels} {value}")
    lines = []
    for name, samples in families.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# TYPE {name} {kind}", *samples]
    return "\n".join(lines) + "\n"


def _samples(stats: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    for stage, found in stats.items():
        if stage == "invocations":
            for worker, outcomes in found.items():
                for outcome, count in outcomes.items():
                    labels = _labels(worker=worker, outcome=outcome)
                    yield "edgesim_invocations_total", labels, count
        elif stage == "cpu_ms":
            for worker, spent in found.items():
                yield "edgesim_cpu_ms_total", _labels(worker=worker), spent
        elif stage in _LABELS:
            for each, counters in found.items():
                yield from _counters(stage, _labels(**{_LABELS[stage]: each}), counters)
        else:
            yield from _counters(stage, "", found)


def _counters(stage: str, labels: str, counters: Any) -> Iterator[tuple[str, str, float]]:
    for name, value in counters.items():
        if isinstance(value, int | float):
            suffix = "" if name in _GAUGES else "_total"
            yield f"edgesim_{stage}_{name}{suffix}", labels, value


def _labels(**labels: str) -> str:
    shown = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    return "{" + ",".join(shown) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

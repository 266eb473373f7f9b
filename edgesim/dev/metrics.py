"""``GET metrics``: what an operator watches, in Prometheus' text format.

https://prometheus.io/docs/instrumenting/exposition_formats/.  The counters of ``stats`` (what only
grows is a counter, what is there now a gauge), the age of queues, the durations of invocations, and
what the processes use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from edgesim.runtime.histogram import BOUNDS, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_GAUGES = {"pending", "objects", "bytes", "backlog"}
# stage -> the label that its second level is: stats[stage][value][counter]
_LABELS = {"pipelines": "pipeline", "r2": "bucket", "queues": "queue"}
_WALL = "edgesim_invocation_seconds"

Kind = Literal["counter", "gauge", "histogram"]


class Sample(NamedTuple):
    """One line; ``suffix`` is what a histogram adds to the name of its family."""

    family: str
    kind: Kind
    labels: Mapping[str, str]
    value: float
    suffix: str = ""


def render(samples: Iterable[Sample]) -> str:
    """All of them, one family after the other."""
    families: dict[tuple[str, Kind], list[str]] = {}
    for family, kind, labels, value, suffix in samples:
        line = f"{family}{suffix}{_shown(labels)} {value}"
        families.setdefault((family, kind), []).append(line)
    lines = []
    for (family, kind), shown in families.items():
        lines += [f"# TYPE {family} {kind}", *shown]
    return "\n".join(lines) + "\n"


def of_stats(stats: dict[str, Any]) -> Iterator[Sample]:
    """The counters of ``stats``."""
    for stage, found in stats.items():
        if stage == "invocations":
            for worker, outcomes in found.items():
                for outcome, count in outcomes.items():
                    labels = {"worker": worker, "outcome": outcome}
                    yield Sample("edgesim_invocations_total", "counter", labels, count)
        elif stage == "cpu_ms":
            for worker, spent in found.items():
                yield Sample("edgesim_cpu_ms_total", "counter", {"worker": worker}, spent)
        elif stage in _LABELS:
            for each, counters in found.items():
                yield from _counters(stage, {_LABELS[stage]: each}, counters)
        else:
            yield from _counters(stage, {}, found)


def of_queues(ages: Mapping[str, float]) -> Iterator[Sample]:
    """How many seconds the oldest message of each queue has waited."""
    for queue, seconds in ages.items():
        yield Sample("edgesim_queues_oldest_seconds", "gauge", {"queue": queue}, seconds)


def of_workers(workers: Mapping[str, Mapping[str, Histogram]]) -> Iterator[Sample]:
    """The durations of invocations, by Worker and outcome."""
    for worker, outcomes in workers.items():
        for outcome, wall in outcomes.items():
            labels = {"worker": worker, "outcome": outcome}
            *counts, count = accumulate(wall.counts)
            for bound, upto in zip((*BOUNDS, "+Inf"), (*counts, count), strict=True):
                yield Sample(_WALL, "histogram", labels | {"le": str(bound)}, upto, "_bucket")
            yield Sample(_WALL, "histogram", labels, wall.sum, "_sum")
            yield Sample(_WALL, "histogram", labels, count, "_count")


def _counters(stage: str, labels: dict[str, str], counters: Any) -> Iterator[Sample]:
    for name, value in counters.items():
        if not isinstance(value, int | float):
            continue
        if name in _GAUGES:
            yield Sample(f"edgesim_{stage}_{name}", "gauge", labels, value)
        else:
            yield Sample(f"edgesim_{stage}_{name}_total", "counter", labels, value)


def _shown(labels: Mapping[str, str]) -> str:
    shown = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    return "{" + ",".join(shown) + "}" if shown else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

"""Changes of streams, sinks and SQL pipelines, and what they mean on Cloudflare.

There the schema of a stream, every setting of a sink and the SQL of a pipeline cannot be changed:
the object must be deleted and created again.  A deleted stream takes the pipelines that read it
with it, loses the records that are not in a sink yet, and comes back with another id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from edgesim.config.dataflow import Dataflow, HttpIngestConfig
from edgesim.config.pipelines import Field
from edgesim.config.sinks import SinkConfig

Kind = Literal["stream", "sink", "pipeline"]
Action = Literal["create", "recreate", "update", "delete"]


class AppliedStream(msgspec.Struct, frozen=True):
    """The settings of a stream on Cloudflare."""

    fields: list[Field]
    http: HttpIngestConfig


class AppliedPipeline(msgspec.Struct, frozen=True):
    """The SQL of a pipeline on Cloudflare, and the names in it."""

    sql: str
    streams: list[str]
    sinks: list[str]


class AppliedFlow(msgspec.Struct, frozen=True):
    """Streams, sinks and pipelines as they were last applied to an account."""

    streams: dict[str, AppliedStream] = {}
    sinks: dict[str, SinkConfig] = {}
    pipelines: dict[str, AppliedPipeline] = {}


class Change(msgspec.Struct, frozen=True):
    """One object that differs: the action needed, its reason, and the data it loses."""

    action: Action
    kind: Kind
    name: str
    reason: str
    loss: str = ""

    def __str__(self) -> str:
        shown = f"{self.action} {self.kind} {self.name}: {self.reason}"
        return f"{shown}; {self.loss}" if self.loss else shown


def applied_flow(flow: Dataflow) -> AppliedFlow:
    """The part of a project that is applied to an account."""
    return AppliedFlow(
        {name: AppliedStream(each.fields, each.config.http) for name, each in flow.streams.items()},
        flow.sinks,
        {
            name: AppliedPipeline(
                each.sql.strip(),
                sorted({statement.stream for statement in each.statements}),
                sorted({statement.sink for statement in each.statements}),
            )
            for name, each in flow.pipelines.items()
        },
    )


def changes(before: AppliedFlow, after: AppliedFlow) -> list[Change]:
    """Everything that has to be done on the account, streams first."""
    streams = list(_streams(before, after))
    sinks = list(_sinks(before, after))
    replaced = {(each.kind, each.name) for each in (*streams, *sinks) if each.action == "recreate"}
    return [*streams, *sinks, *_pipelines(before, after, replaced)]


def _streams(before: AppliedFlow, after: AppliedFlow) -> Iterator[Change]:
    lost = "records that are in no sink yet are lost, and its id changes: deploy its Workers again"
    for name, old in before.streams.items():
        new = after.streams.get(name)
        if new is None:
            yield Change("delete", "stream", name, "it is not in the project", lost)
        elif new.fields != old.fields:
            yield Change("recreate", "stream", name, _difference(old.fields, new.fields), lost)
        elif new.http != old.http:
            reason = "http can be changed in place, in the dashboard or by the API"
            yield Change("update", "stream", name, reason)
    yield from _created("stream", before.streams, after.streams)


def _difference(old: list[Field], new: list[Field]) -> str:
    """The change of a schema in words, by its top-level columns."""
    olds, news = ({each.name: each for each in fields} for fields in (old, new))
    parts = {
        "new": news.keys() - olds.keys(),
        "without": olds.keys() - news.keys(),
        "other": {name for name in olds.keys() & news.keys() if olds[name] != news[name]},
    }
    shown = [f"{word} {', '.join(sorted(names))}" for word, names in parts.items() if names]
    return f"its schema differs ({'; '.join(shown) or 'order of the columns'})"


def _sinks(before: AppliedFlow, after: AppliedFlow) -> Iterator[Change]:
    for name, old in before.sinks.items():
        new = after.sinks.get(name)
        if new is None:
            yield Change("delete", "sink", name, "it is not in the project; its files stay")
        elif keys := _differing(old, new):
            reason = f"{', '.join(keys)} {'differs' if len(keys) == 1 else 'differ'}"
            yield Change("recreate", "sink", name, reason, _loss_of_table(old, new))
    yield from _created("sink", before.sinks, after.sinks)


def _differing(old: SinkConfig, new: SinkConfig) -> list[str]:
    """The settings that differ; the two names of the type with a table are one type."""
    if old.is_catalog and new.is_catalog:
        old = msgspec.structs.replace(old, type=new.type)
    return [key for key in old.__struct_fields__ if getattr(old, key) != getattr(new, key)]


def _same_table(old: SinkConfig, new: SinkConfig) -> bool:
    """True if both sinks write into one Iceberg table."""
    tables = [(each.bucket, each.namespace, each.table) for each in (old, new)]
    return old.is_catalog and new.is_catalog and tables[0] == tables[1]


def _loss_of_table(old: SinkConfig, new: SinkConfig) -> str:
    if not _same_table(old, new):
        return ""
    table = f"{new.namespace}.{new.table}"
    return f"a new sink refuses table {table}, which exists: drop it with its rows, or name another"


def _pipelines(
    before: AppliedFlow, after: AppliedFlow, replaced: set[tuple[Kind, str]]
) -> Iterator[Change]:
    lost = "records that arrive before it exists again are in no sink of it"
    for name, old in before.pipelines.items():
        new = after.pipelines.get(name)
        if new is None:
            yield Change("delete", "pipeline", name, "it is not in the project")
            continue
        uses: list[tuple[Kind, str]] = [
            *(("stream", each) for each in old.streams),
            *(("sink", each) for each in old.sinks),
        ]
        if new.sql != old.sql:
            yield Change("recreate", "pipeline", name, "its SQL differs", lost)
        elif again := [f"{kind} {each}" for kind, each in uses if (kind, each) in replaced]:
            yield Change("recreate", "pipeline", name, f"{', '.join(again)} is created again", lost)
    yield from _created("pipeline", before.pipelines, after.pipelines)


def _created(kind: Kind, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for name in after:
        if name not in before:
            yield Change("create", kind, name, "it is new")

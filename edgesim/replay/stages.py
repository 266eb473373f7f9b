"""Stages of a replay as rows of the report's table."""

from __future__ import annotations

import msgspec

from edgesim.replay.history import Flow
from edgesim.replay.latencies import Latencies, Percentiles
from edgesim.replay.world import World


class Stage(msgspec.Struct, frozen=True):
    """Counts of one stage; None if a count does not apply to it.

    Latencies are virtual time: requests from arrival to response, traces from their event to their
    delivery, records from acceptance to the object, messages from sending to acknowledgement; and
    ``end to end`` from a record's acceptance to the acknowledgement of its object's message.
    """

    name: str
    entered: int
    left: int
    lost: int | None = None
    retried: int | None = None
    dead: int | None = None
    latency: Percentiles | None = None


def stages(world: World, requests: int, answered: int, latencies: Latencies) -> list[Stage]:
    """Rows of the table, in the order of the data flow."""
    history = world.history
    rows = [
        Stage(
            world.project.entry,
            requests,
            answered,
            lost=requests - answered,
            latency=latencies.percentiles(),
        )
    ]
    rows += [
        _stage(f"tail {name}", flow, lost=flow.lost) for name, flow in sorted(history.tails.items())
    ]
    rows += [_sent_to(world, name, flow) for name, flow in sorted(history.pipelines.items())]
    rows += [_stage(f"bucket {name}", flow) for name, flow in sorted(history.buckets.items())]
    rows += [
        _stage(f"queue {name}", flow, lost=flow.lost, retried=flow.retried, dead=flow.dead)
        for name, flow in sorted(history.queues.items())
    ]
    if history.clickhouse.entered:
        rows.append(_stage("inserts", history.clickhouse, retried=history.clickhouse.retried))
    for name, chain in sorted(history.whole_chain.items()):
        flow = history.pipelines[name]
        rows.append(
            Stage(f"end to end {name}", flow.entered, flow.left, latency=chain.percentiles())
        )
    return rows


def _sent_to(world: World, name: str, flow: Flow) -> Stage:
    """The row of a Pipeline, or of a stream: a stream's records have left it once in every sink."""
    stream = world.simulator.primitives.streams.get(name)
    if stream is None:
        return _stage(f"pipeline {name}", flow)
    return Stage(f"stream {name}", flow.entered, flow.entered - stream.pending)


def _stage(
    name: str,
    flow: Flow,
    *,
    lost: int | None = None,
    retried: int | None = None,
    dead: int | None = None,
) -> Stage:
    return Stage(name, flow.entered, flow.left, lost, retried, dead, flow.latencies.percentiles())

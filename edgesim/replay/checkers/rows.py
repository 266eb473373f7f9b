"""Checks that sinks have every row of their streams, and none more often than it was sent.

Sinks that take whole streams as JSON are checked row by row; the rows that SQL makes are compared
with a fixture's expectations instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from edgesim.config.dataflow import Dataflow
from edgesim.config.sinks import SinkConfig
from edgesim.errors import RunError
from edgesim.replay.digests import Digests
from edgesim.replay.expectations import read_lines
from edgesim.replay.world import World

_FILE = re.compile(r"(.*/)?[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}\.json(\.gz)?")


async def check(world: World) -> list[str]:
    """Check, row by row: accepted <= stored <= attempted, for each statement that fills a sink."""
    problems = []
    flow = world.project.dataflow
    for name, sink in flow.sinks.items():
        sources = _whole_streams(flow, name)
        if sources and sink.format == "json" and not _is_shared(flow, name, sink):
            problems += await _check_sink(world, name, sink, sources)
    return problems


def _whole_streams(flow: Dataflow, sink: str) -> list[str]:
    """The stream of each statement that fills the sink; empty if one of them selects."""
    filling = [
        statement
        for spec in flow.pipelines.values()
        for statement in spec.statements
        if statement.sink == sink
    ]
    if not all(statement.takes_all for statement in filling):
        return []
    return [statement.stream for statement in filling]


def _is_shared(flow: Dataflow, name: str, sink: SinkConfig) -> bool:
    """True if another sink writes below the same folder."""
    return any(
        other != name and each.bucket == sink.bucket and f"{each.path}/".startswith(sink.path)
        for other, each in flow.sinks.items()
    )


async def _check_sink(
    world: World, name: str, sink: SinkConfig, sources: Sequence[str]
) -> list[str]:
    history = world.history
    stored, accepted, attempted = Digests(), Digests(), Digests()
    for stream in sources:
        accepted.extend(history.accepted[stream])
        attempted.extend(history.attempted[stream])
    unreadable = 0
    prefix = f"{folder}/" if (folder := sink.path.strip("/")) else ""
    async for found in world.simulator.primitives.objects(sink.bucket, prefix):
        if _FILE.fullmatch(found.key, len(prefix)) is None:
            continue
        try:
            async for lines in read_lines(world.simulator, sink.bucket, found.key):
                stored.add(map(msgspec.json.decode, lines))
        except RunError:
            unreadable += 1
    problems = []
    if unreadable > history.blobs_damaged:
        problems.append(f"sink {name}: {unreadable} files cannot be read")
    missing = accepted.beyond(stored)
    damaged = sum(history.damaged[stream] for stream in sources)
    if missing > damaged and not (history.lied or unreadable):
        problems.append(f"sink {name}: {missing} accepted rows are in no file")
    if twice := stored.beyond(attempted):
        problems.append(f"sink {name}: {twice} rows are stored oftener than they were sent")
    return problems

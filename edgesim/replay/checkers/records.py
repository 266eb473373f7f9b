"""Checks that Pipelines stored every accepted record, and none more often than it was sent."""

from __future__ import annotations

import re
from collections import Counter

import msgspec

from edgesim.errors import RunError
from edgesim.replay.digests import Digests
from edgesim.replay.expectations import read_lines
from edgesim.replay.world import World

_NAME = re.compile(
    r"(event_date=[\d-]+/hr=\d\d/[0-9A-Z]{26}|year=\d+/month=\d+/day=\d+/[\da-f-]{36})\.json(\.gz)?"
)
"""Key of a Pipeline's object after its prefix; a Worker may store other objects beside them."""


async def check(world: World) -> list[str]:
    """Check, record by record: accepted <= stored <= attempted.

    A record that was attempted but not accepted may be stored or not: the platform may have been
    killed before it replied. A flipped bit or a lying flush may lose the records of the writes that
    it hit in a log, and make an object whose file it hit unreadable. It never turns records into
    other records.
    """
    problems = []
    history = world.history
    history.unreadable, history.missing = [], Counter()
    for name, pipeline in world.project.account.pipelines.items():
        stored = Digests()
        unreadable = 0
        prefix = f"{folder}/" if (folder := pipeline.prefix.strip("/")) else ""
        async for found in world.simulator.primitives.objects(pipeline.bucket, prefix):
            if _NAME.fullmatch(found.key, len(prefix)) is None:
                continue
            try:
                async for lines in read_lines(world.simulator, pipeline.bucket, found.key):
                    stored.add(map(msgspec.json.decode, lines))
            except RunError as error:
                history.unreadable.append((pipeline.bucket, found.key))
                unreadable += history.rows_in.get((pipeline.bucket, found.key), 0)
                if len(history.unreadable) > history.blobs_damaged:
                    problems.append(f"pipeline {name}: object {found.key} cannot be read: {error}")
        history.missing[name] = max(0, history.accepted[name].beyond(stored) - unreadable)
        if history.missing[name] > history.damaged[name] and not history.lied:
            problems.append(
                f"pipeline {name}: {history.missing[name]} accepted records are in no object"
            )
        if twice := stored.beyond(history.attempted[name]):
            problems.append(
                f"pipeline {name}: {twice} records are stored oftener than they were sent"
            )
    problems += [f"a Pipeline wrote {each} again" for each in history.rewritten]
    return problems

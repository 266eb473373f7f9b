"""Checks that a table holds each object's rows once, however often the object was inserted."""

from __future__ import annotations

import json

from edgesim.replay.world import World


async def check(world: World) -> list[str]:
    """Check tables whose inserts all carry a deduplication token, which identifies their data."""
    problems = []
    for table, inserted in sorted(world.history.inserts.items()):
        if table in world.history.untokened:
            continue
        count = f"SELECT count() FROM {table}"  # noqa: S608 (the name comes from the Worker's statement)
        answer = json.loads(await world.ask(count))
        found = int(answer["data"][0][0])
        if found != inserted.rows:
            problems.append(
                f"table {table}: {len(inserted.tokens)} different inserts have {inserted.rows} "
                f"rows, and {found} are there"
            )
    return problems

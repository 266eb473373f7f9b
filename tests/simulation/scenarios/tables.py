"""A stream into Parquet files and an Iceberg table: rows are in each of them once."""

import json
import random

from edgesim.replay.digests import Digests
from edgesim.replay.world import World
from tests.iceberg_files import parquet_rows, table_rows
from tests.simulation import adversity
from tests.simulation.adversity import HORIZON_SECONDS
from tests.simulation.scenarios.scenario import PROJECTS, Scenario
from tests.simulation.scenarios.streams import of_streams


def traffic(seed: int) -> list[str]:
    """Requests to the Worker and to the HTTP endpoint."""
    chance = random.Random(f"tables {seed}")
    numbers = iter(range(10**6))
    times = sorted(round(HORIZON_SECONDS * chance.random(), 3) for _ in range(12))
    lines = []
    for at in times:
        records = [
            {"n": next(numbers), "text": "x" * chance.randrange(200), "tags": ["a", None]}
            for _ in range(chance.choice([1, 3, 60]))
        ]
        path = chance.choice(["/", "/cdn-cgi/edgesim/ingest/plays"])
        lines.append(json.dumps({"at": at, "request": {"path": path, "json": records}}))
    return lines


def faults(seed: int, zygotes: bool) -> list[str]:
    """The seed's faults of the parts of this project, and a kill; no damage of stored bytes."""
    rules = adversity.generate(seed, zygotes=zygotes)
    kept = [
        rule
        for rule in rules
        if of_streams(rule) and "lying-fsync" not in rule and "flip" not in rule
    ]
    return [*kept, f"platform kill at {20 + 10 * (seed % 60)}s"]


async def each_row_once(world: World) -> list[str]:
    """Accepted rows are stored, and no row is stored oftener than it was sent."""
    accepted, attempted = Digests(), Digests()
    accepted.extend(world.history.accepted["plays"])
    attempted.extend(world.history.attempted["plays"])
    problems = []
    for name, stored in (
        ("files", await _rows_of_files(world)),
        ("table", await _rows_of_table(world)),
    ):
        if missing := accepted.beyond(stored):
            problems.append(f"{missing} accepted rows are not in the {name}")
        if twice := stored.beyond(attempted):
            problems.append(f"{twice} rows are in the {name} oftener than they were sent")
    return problems


async def _rows_of_files(world: World) -> Digests:
    bucket = world.simulator.primitives.bucket("files")
    stored = Digests()
    async for found in world.simulator.primitives.objects("files", ""):
        stored.add(await parquet_rows(bucket, found.key))
    return stored


async def _rows_of_table(world: World) -> Digests:
    rows = await table_rows(world.simulator.primitives.catalogs["lake"], "games", "plays")
    for row in rows:
        del row["__ingest_ts"]
    stored = Digests()
    stored.add(rows)
    return stored


SCENARIO = Scenario(PROJECTS / "tables", traffic, faults, {"each row once": each_row_once})

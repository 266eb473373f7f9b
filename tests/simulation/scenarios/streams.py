"""Streams without SQL: rows are in each of three JSON sinks once."""

import json
import random

from tests.simulation import adversity
from tests.simulation.adversity import HORIZON_SECONDS
from tests.simulation.scenarios.scenario import PROJECTS, Scenario

PLACES = {"platform", "clock", "disk", "pipelines", "r2", "workers", "sender"}
"""Targets of fault rules in a project of streams."""


def traffic(seed: int) -> list[str]:
    """Requests to the Worker and to the HTTP endpoint; one record in ten breaks the schema."""
    chance = random.Random(f"sends {seed}")
    numbers = iter(range(10**6))
    times = sorted(
        round(HORIZON_SECONDS * chance.random(), 3) for _ in range(chance.choice([5, 40]))
    )
    lines = []
    for at in times:
        records = [_record(chance, next(numbers)) for _ in range(chance.choice([1, 3, 60]))]
        path = chance.choice(["/", "/", "/cdn-cgi/edgesim/ingest/typed"])
        lines.append(json.dumps({"at": at, "request": {"path": path, "json": records}}))
    return lines


def _record(chance: random.Random, number: int) -> dict[str, object]:
    if chance.random() < 0.1:
        return {"n": str(number)}
    record: dict[str, object] = {"n": number, "unknown": True, "more": {"x": [number]}}
    return record | ({"at": 1_700_000_000_000 + number} if chance.random() < 0.5 else {})


def faults(seed: int, zygotes: bool) -> list[str]:
    """The rules of the seed that concern a part of this project.

    Without lying flushes: a stream whose positions a disk has lost twice refuses to start.
    """
    rules = adversity.generate(seed, zygotes=zygotes)
    return [rule for rule in rules if of_streams(rule) and "lying-fsync" not in rule]


def of_streams(rule: str) -> bool:
    """Return True if the rule's target is a part of a project of streams."""
    return rule.split(maxsplit=1)[0].partition(".")[0] in PLACES


SCENARIO = Scenario(PROJECTS / "streams", traffic, faults)

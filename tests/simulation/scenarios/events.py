"""The Workers of this repository, and one that uploads in parts: each event is one row."""

import json

import msgspec

from edgesim.errors import RunError
from edgesim.model import read_all
from edgesim.r2.bucket import R2ObjectBody
from edgesim.replay.expectations import read_lines
from edgesim.replay.world import World
from tests.simulation import adversity
from tests.simulation.scenarios import event_traffic
from tests.simulation.scenarios.scenario import PROJECTS, Scenario
from tests.simulation.tally import EFFECTS, RULES


async def rows_are_records(world: World) -> list[str]:
    """Every event that is in an object is a row of `events`, and no event is two rows.

    Exception: an object whose message went to the dead-letter queue is not inserted.
    """
    [[rows, ids]] = json.loads(
        await world.ask("SELECT toUInt32(count()), toUInt32(uniqExact(match_id)) FROM events")
    )["data"]
    stored = len(world.history.accepted["events"])
    problems = []
    if rows != ids:
        problems.append(f"{rows} rows of events have {ids} different ids")
    stored -= world.history.damaged["events"]
    if rows < stored and not _dead(world) and not world.history.lied:
        problems.append(f"{stored} events were accepted, {rows} are rows, and nothing died")
    return problems


async def uploads_are_whole(world: World) -> list[str]:
    """Every object that the uploader reports as stored has all its parts or is reported damaged."""
    archive = world.simulator.primitives.bucket("archive")
    problems, unreadable = [], len(world.history.unreadable)
    async for found in world.simulator.primitives.objects("stored", ""):
        if ("stored", found.key) in world.history.unreadable:
            continue
        async for lines in read_lines(world.simulator, "stored", found.key):
            for said in map(msgspec.json.decode, lines):
                try:
                    there = await archive.get(said["key"])
                    if not isinstance(there, R2ObjectBody) or there.object.size != said["size"]:
                        problems.append(f"{said} was stored, and {there} is there")
                        continue
                    whole = set(await read_all(there.body)) == {ord("x")}
                except RunError as error:
                    unreadable += 1
                    whole = unreadable <= world.history.blobs_damaged
                    problems += [] if whole else [f"{said} cannot be read: {error}"]
                else:
                    problems += [] if whole else [f"{said} was stored, and other bytes are there"]
    return problems


def _dead(world):
    """Return True if the platform or the insert Worker sent anything to a dead-letter queue."""
    consumers = world.project.workers["insert"].settings.queues.consumers
    names = {consumer.dead_letter_queue for consumer in consumers}
    return any(flow.entered for name, flow in world.history.queues.items() if name in names)


def faults(seed: int, zygotes: bool) -> list[str]:
    """All rules of the seed."""
    return adversity.generate(seed, zygotes=zygotes)


SCENARIO = Scenario(
    PROJECTS / "events",
    event_traffic.generate,
    faults,
    {"each event one row": rows_are_records, "uploads are whole": uploads_are_whole},
    effects=frozenset(RULES | EFFECTS),
    says_damage=True,
)

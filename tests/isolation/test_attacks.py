"""Every attack at every level that promises to contain it."""

import json
from typing import Any

import anyio
import pytest

from tests.isolation.table import ATTACKS, CONTAINED, Attack
from tests.isolation.world import World, no_change_found, open_world

pytestmark = pytest.mark.anyio


MEASURED = {"process": {"asks-and-never-reads"}}
"""Attacks by level that test_platform_memory runs, with a bound on the platform's memory."""


def contained(level: str) -> list[Any]:
    return [
        pytest.param(attack, id=attack.name)
        for attack in ATTACKS
        if attack.promise(level).startswith(CONTAINED)
        and attack.name not in MEASURED.get(level, ())
    ]


@pytest.mark.linux
@pytest.mark.parametrize("attack", contained("process"))
async def test_process_contains(process, attack):
    """A process per invocation: the attack ends as the table says and affects no other."""
    await check(process, attack)


@pytest.mark.linux
@pytest.mark.parametrize("attack", contained("warm"))
async def test_warm_contains(warm, attack):
    """A process for many invocations contains the attack too, by ending it where needed."""
    await check(warm, attack)


@pytest.mark.parametrize("attack", contained("inline"))
async def test_inline_contains(inline, attack):
    """The platform's own process contains the attacks that the table says."""
    await check(inline, attack)


async def check(world: World, attack: Attack) -> None:
    before = await world.honest()
    answer = await world.attack(attack.name)
    assert answer.outcome in attack.ends(world.level), answer.done
    assert attack.says in answer.failure, answer.done
    assert await world.honest() == before
    found = []

    async def visit():
        found.append(await world.honest())

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(visit)
    assert found == [before] * 4


async def test_two_ends_are_one(process):
    """Frames after an isolate's end are ignored: the first response counts, no call is made."""
    before = len(process.requests)
    answer = await process.attack("two-ends")
    assert answer.body == b"first"
    assert answer.logs == []
    assert len(process.requests) == before
    assert (await process.attack("two-responses")).body == b"first"


async def test_logs_are_bounded(process):
    """A trace keeps its size limit however much is logged, also past the SDK."""
    for attack in ("log-flood", "log-flood-of-nothing", "log-flood-raw"):
        answer = await process.attack(attack)
        assert answer.truncated
        assert sum(len(part) for log in answer.logs for part in log.message) <= 256 * 1024 + 1000
        assert len(answer.logs) < 10_000


async def test_random_is_not_seeded_for_others(process, warm, inline):
    """random.seed affects only its own invocation; the next one draws other numbers."""
    for world in (process, warm, inline):
        first = await world.fetch("draw")
        await world.attack("random-seeded")
        assert (await world.fetch("draw")).body != first.body


async def test_warm_stays_warm():
    """Nothing that honest invocations do retires their process."""
    async with open_world("warm") as world:
        with no_change_found():
            for _ in range(5):
                await world.fetch("pid")


@pytest.mark.parametrize("name", ["library-method", "cache-poisoned"])
async def test_what_warm_does_not_contain(name):
    """Attacks that the table calls not contained do change the next invocation."""
    async with open_world("warm") as world:
        before = await world.honest()
        await world.attack(name)
        answer = await world.fetch("honest", b"12345")
        assert answer.outcome != "ok" or json.loads(answer.body) != before

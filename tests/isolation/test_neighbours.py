"""Invocations that share a `warm` process with an attack are answered correctly all the same."""

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from tests.isolation.world import CPU_MS, Answer, World

pytestmark = pytest.mark.anyio

NEIGHBOURS = 6
ENDS = [
    "busy-loop",
    "busy-in-c",
    "busy-and-deaf",
    "busy-timer-disarmed",
    "time-sleep",
    "memory-in-one-block",
    "memory-in-many",
    "memory-and-deaf",
    "os-exit",
    "segfault",
    "loop-stopped",
    "closed-descriptors",
    "garbage",
    "frame-of-2-gb",
    "half-a-frame",
    "wrong-frames",
    "end-of-another",
    "invented-outcome",
    "nested-in-a-frame",
    "expanding-frame",
    "calls-without-end",
    "half-characters",
    "console-past-the-sdk",
    "environ",
    "recursion",
]


@pytest.mark.parametrize("name", ENDS)
async def test_neighbours_of_an_attack_are_right(warm, name):
    """Neighbours that had made no call restart elsewhere and are answered correctly."""
    answers = await beside(warm, "slow", lambda: warm.attack(name))
    assert [answer.outcome for answer in answers] == ["ok"] * NEIGHBOURS, answers[0].done
    assert [answer.body for answer in answers] == [b"3"] * NEIGHBOURS
    await warm.honest()


@pytest.mark.parametrize("name", ["busy-loop", "busy-in-c", "busy-and-deaf"])
async def test_who_exceeds_its_cpu_time_has_used_it(process, warm, name):
    """An invocation over its CPU limit has that CPU time, also if its process had to be killed."""
    for world in (process, warm):
        done = (await world.attack(name)).done
        assert done.outcome == "exceededCpu"
        assert CPU_MS / 2 < done.cpu_ms < 10 * CPU_MS  # the timer counts whole ticks


@pytest.mark.parametrize("name", ["busy-loop", "os-exit", "garbage", "memory-in-many"])
async def test_neighbours_that_have_called_are_right_or_told(warm, name):
    """No call is made twice: a neighbour that made one is answered correctly or fails."""
    before = len(warm.requests)
    answers = await beside(warm, "calling", lambda: warm.attack(name))
    for answer in answers:
        if answer.outcome == "ok":
            assert answer.body == b"called"
        else:
            assert answer.outcome == "internalError", answer.done
            assert answer.response is None
    assert len(warm.requests) - before <= NEIGHBOURS
    await warm.honest()


@pytest.mark.linux
async def test_who_blocks_and_does_nothing_is_ended(warm, monkeypatch):
    """An invocation that blocks without CPU use is ended; neighbours that made a call may fail."""
    monkeypatch.setattr("edgesim.isolates.host.warm.BLOCKED_SECONDS", 1.0)
    blocked: list[Answer] = []

    async def block() -> None:
        blocked.append(await warm.fetch("lock"))

    answers = await beside(warm, "calling", block)
    assert [answer.outcome for answer in blocked] == ["exceededWallTime"]
    assert 0 < blocked[0].done.cpu_ms < 1000
    assert {answer.outcome for answer in answers} <= {"ok", "internalError"}
    await warm.honest()


async def test_several_attacks_at_once(warm):
    """Neighbours survive several process deaths in a row."""

    async def attack() -> None:
        async with anyio.create_task_group() as tasks:
            for name in ("os-exit", "segfault", "garbage", "memory-in-many", "busy-loop") * 2:
                tasks.start_soon(warm.attack, name)

    answers = await beside(warm, "slow", attack)
    assert [answer.outcome for answer in answers] == ["ok"] * NEIGHBOURS


async def test_many_wait_their_turn(warm):
    """Each of 700 concurrent requests, more than the processes accept at once, is answered."""
    answers: list[Answer] = []

    async def one() -> None:
        answers.append(await warm.fetch("slow"))

    async with anyio.create_task_group() as tasks:
        for _ in range(700):
            tasks.start_soon(one)
    assert {answer.outcome for answer in answers} == {"ok"}


async def test_a_client_that_goes_away_takes_its_invocation_with_it(warm):
    """An invocation stops running when its client disconnects."""
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(warm.fetch, "attack/ticking")
        await anyio.sleep(0.3)
        tasks.cancel_scope.cancel()
    await warm.honest()
    ticks = int((await warm.fetch("ticks")).body)
    assert ticks == int((await warm.fetch("ticks")).body)


async def test_the_collector_speaks_in_nobodys_name(warm):
    """Garbage of ended invocations is collected outside of any other invocation."""
    for _ in range(10):
        for _ in range(5):
            await warm.attack("speaks-from-the-grave")
        answer = await warm.fetch("churn")
        assert (answer.outcome, answer.body) == ("ok", b"churned"), answer.done
        assert answer.logs == []


async def beside(
    world: World, path: str, attack: Callable[[], Coroutine[Any, Any, Any]]
) -> list[Answer]:
    """Return the answers to neighbours that were running when the attack began."""
    answers: list[Answer] = []

    async def neighbour() -> None:
        answers.append(await world.fetch(path))

    async with anyio.create_task_group() as tasks:
        for _ in range(NEIGHBOURS):
            tasks.start_soon(neighbour)
        await anyio.sleep(0.05)  # so that they are running
        tasks.start_soon(attack)
    return answers
